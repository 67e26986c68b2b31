"""One connection to a broker, step by step, to learn why it fails: kafka-python says of whatever goes wrong that it timed out."""

import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kafka.errors import KafkaError, SaslAuthenticationFailedError, for_code
from kafka.net.sasl import SASL_MECHANISMS, get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from ingest.address import parse_address
from ingest.errors import LogDenied, LogUnavailable
from ingest.log.kafka.tls import tls_context
from ingest.log.kafka_settings import KAFKA_PORT, KafkaSettings
from ingest.tls import TlsFault, explain_tls_error

_CONNECT_SECONDS = 1.0
_SECONDS = 2.0  # for an answer, of all brokers together: one that is frozen must not keep a delivery from the spool for longer
_LEAST_SECONDS = 0.5
_TLS_ALERT = b"\x15\x03"  # how a TLS port answers what is not TLS
_ILLEGAL_SASL_STATE, _UNSUPPORTED_MECHANISM = 34, 33
_WITH_PASSWORD = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_REMEDIES = {
    TlsFault.EXPIRED: "renew it at the broker",
    TlsFault.OTHER_HOST: "name the broker in log as its certificate does, or give it a certificate for this name",
    TlsFault.UNTRUSTED: "set kafka.ssl_cafile to the certificate of the authority that signed it",
    TlsFault.CLIENT_CERTIFICATE: "set kafka.ssl_certfile and kafka.ssl_keyfile to a certificate that the broker accepts",
    TlsFault.NOT_TLS: "correct the port in log, or kafka.security_protocol",
    TlsFault.OTHER: "correct the port in log, or kafka.security_protocol",
}


@dataclass(frozen=True, slots=True)
class Welcome:
    """`expires`: when the broker's certificate does, where there is TLS. `brokers`: host and port of each, as the cluster names them."""

    server: str
    expires: datetime | None = None
    brokers: tuple[tuple[str, int], ...] = ()


class _Refused(LogDenied):
    """Why this broker will not talk to us. A connection that is closed without a word is no such proof: the broker may be stopping."""


def knock(servers: Sequence[str], settings: KafkaSettings) -> Welcome:
    """Connects and logs in to the first that lets us. Raises LogUnavailable, with the reason of each, when none does."""
    context = tls_context(settings)
    _check_login(settings)
    patience = max(_LEAST_SECONDS, _SECONDS / len(servers))
    reasons: dict[str, list[str]] = {}
    denied = False
    for server in servers:
        try:
            return _greet(server, settings, context, patience)
        except TimeoutError:
            reasons.setdefault(
                f"it takes the connection, and does not answer within {patience:.1f} s", []
            ).append(server)
        except LogUnavailable as refusal:
            denied = denied or isinstance(refusal, LogDenied)
            reasons.setdefault(str(refusal), []).append(server)
    kind = LogDenied if denied else LogUnavailable
    raise kind("; ".join(f"Kafka at {', '.join(where)}: {reason}" for reason, where in reasons.items()))


def _check_login(settings: KafkaSettings) -> None:
    if not settings.security_protocol.startswith("SASL_"):
        return
    if settings.sasl_mechanism and settings.sasl_mechanism not in SASL_MECHANISMS:
        raise LogDenied(
            f"kafka.sasl_mechanism {settings.sasl_mechanism} is not known: use one of {', '.join(sorted(_WITH_PASSWORD))}"
        )
    needed = ["sasl_mechanism"] + ["sasl_username", "sasl_password"] * (
        settings.sasl_mechanism in _WITH_PASSWORD
    )
    missing = [f"kafka.{name}" for name in needed if not getattr(settings, name)]
    if missing:
        raise LogDenied(
            f"kafka.security_protocol is {settings.security_protocol}: set {', '.join(missing)} too"
        )


def _greet(server: str, settings: KafkaSettings, context: ssl.SSLContext | None, patience: float) -> Welcome:
    """Raises TimeoutError when it connects and then does not answer."""
    host, port = parse_address(server, KAFKA_PORT)
    with (
        closing(connect(host, port, patience)) as plain,
        closing(_encrypted(plain, host, context)) as connection,
    ):
        talk = _Talk(connection, host)
        talk.ask(ApiVersionsRequest(version=0), "It may not be Kafka.")
        if settings.security_protocol.startswith("SASL_"):
            if settings.sasl_mechanism not in _WITH_PASSWORD:
                return Welcome(server, _expiry(connection))  # such a login is kafka-python's affair
            _log_in(talk, settings)
        hint = "It may want a login: set kafka.security_protocol to SASL_PLAINTEXT or SASL_SSL, and the kafka.sasl settings."
        brokers = talk.ask(MetadataRequest(version=1, topics=[]), hint).brokers
        return Welcome(server, _expiry(connection), tuple((broker.host, broker.port) for broker in brokers))


def connect(host: str, port: int, patience: float = _SECONDS) -> socket.socket:
    """`patience`: seconds for each answer. Raises LogUnavailable with the reason."""
    try:
        connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
    except socket.gaierror as error:
        raise LogUnavailable(
            f"the name {host} cannot be resolved ({error.strerror}): correct log, or the DNS of this machine"
        ) from None
    except TimeoutError:
        raise LogUnavailable(
            f"no connection within {_CONNECT_SECONDS:.0f} s: is the broker running, and does a firewall let us through?"
        ) from None
    except OSError as error:
        raise LogUnavailable(
            f"no connection ({error.strerror or error}): is the broker running, and is its address in log right?"
        ) from None
    connection.settimeout(patience)
    return connection


def _encrypted(plain: socket.socket, host: str, context: ssl.SSLContext | None) -> socket.socket:
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except TimeoutError:
        raise
    except ssl.SSLError as error:
        raise _Refused(_tls_reason(error, host)) from None
    except OSError:
        raise LogUnavailable(
            "it closed the connection in the TLS handshake: correct the port in log, or kafka.security_protocol"
        ) from None


def _tls_reason(error: ssl.SSLError, host: str) -> str:
    found = explain_tls_error(error, host)
    return f"{found.text}: {_REMEDIES[found.fault]}"


def _log_in(talk: "_Talk", settings: KafkaSettings) -> None:
    mechanism = settings.sasl_mechanism
    answer = talk.ask(
        SaslHandshakeRequest(version=1, mechanism=mechanism),
        "It may take no login: correct kafka.security_protocol.",
    )
    if answer.error_code == _ILLEGAL_SASL_STATE:
        without = settings.security_protocol.replace("SASL_SSL", "SSL").replace("SASL_", "")
        raise _Refused(
            f"this port takes no login: set kafka.security_protocol to {without}, or correct the port in log"
        )
    if answer.error_code == _UNSUPPORTED_MECHANISM:
        offered = ", ".join(sorted(answer.mechanisms)) or "none"
        raise _Refused(f"the broker does not offer kafka.sasl_mechanism {mechanism}; it offers {offered}")
    if answer.error_code:
        raise _Refused(f"the login failed: {for_code(answer.error_code).__name__}")
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    sasl = get_sasl_mechanism(mechanism)(
        host=talk.host,
        sasl_plain_username=settings.sasl_username,
        sasl_plain_password=password,
        security_protocol="SASL_SSL",
    )
    wrong = f"the broker refused the SASL login of {settings.sasl_username}: correct kafka.sasl_username and kafka.sasl_password"
    try:
        while not sasl.is_done():
            answer = talk.ask(SaslAuthenticateRequest(version=0, auth_bytes=sasl.auth_bytes()), wrong)
            if answer.error_code:
                raise _Refused(wrong)
            sasl.receive(answer.auth_bytes)
    except (SaslAuthenticationFailedError, ValueError):
        raise _Refused(wrong) from None
    if not sasl.is_authenticated():
        raise _Refused(wrong)


class _Talk:
    """Requests and answers over a socket, one after the other."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.host = host
        self._connection = connection
        self._protocol = KafkaProtocol(client_id="ingest")

    def ask(self, request: Any, hint: str) -> Any:
        """The answer; `hint` is told when the broker hangs up instead. Raises TimeoutError."""
        self._protocol.send_request(request)
        try:
            self._connection.sendall(self._protocol.send_bytes())
            return self._answer(hint)
        except TimeoutError:
            raise
        except ssl.SSLError as error:
            raise _Refused(_tls_reason(error, self.host)) from None
        except OSError:
            raise LogUnavailable(f"it closed the connection. {hint}") from None
        except KafkaError:
            raise _Refused(f"its answer cannot be read. {hint}") from None

    def _answer(self, hint: str) -> Any:
        first = True
        while data := self._connection.recv(65536):
            if first and data.startswith(_TLS_ALERT):
                raise _Refused(
                    "the port wants TLS: set kafka.security_protocol to SSL or SASL_SSL, or correct the port in log"
                )
            first = False
            for _, answer in self._protocol.receive_bytes(data):
                return answer
        raise LogUnavailable(f"it closed the connection. {hint}")


def _expiry(connection: socket.socket) -> datetime | None:
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
