"""A connection to a broker, step by step, to find out why it fails, which kafka-python does not tell.

Its TLS context is that of the settings, with errors that name the file and the setting.
"""

import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError, SaslAuthenticationFailedError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from ingest.address import parse_address
from ingest.errors import LogDenied, LogUnavailable
from ingest.log.kafka_settings import KAFKA_PORT, KafkaSettings
from ingest.tls import TlsFault, explain_tls_error

_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = (
    2.0  # of all brokers together: a frozen one must not keep a delivery from the spool for longer
)
_MIN_ANSWER_SECONDS = 0.5
_TLS_ALERT = b"\x15\x03"  # how a TLS port answers what is not TLS
_ILLEGAL_SASL_STATE, _UNSUPPORTED_MECHANISM = 34, 33
_WITH_PASSWORD = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_REMEDIES = {
    TlsFault.EXPIRED: "renew it at the broker",
    TlsFault.OTHER_HOST: (
        "name the broker in log as its certificate does, or give it a certificate for this name"
    ),
    TlsFault.UNTRUSTED: "set kafka.ssl_cafile to the certificate of the authority that signed it",
    TlsFault.CLIENT_CERTIFICATE: (
        "set kafka.ssl_certfile and kafka.ssl_keyfile to a certificate that the broker accepts"
    ),
    TlsFault.NOT_TLS: "correct the port in log, or kafka.security_protocol",
    TlsFault.OTHER: "correct the port in log, or kafka.security_protocol",
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """A successful login to a broker.

    `certificate_expires_at` is None without TLS. `brokers` are host and port of each broker, as the cluster
    names them.
    """

    server: str
    certificate_expires_at: datetime | None = None
    brokers: tuple[tuple[str, int], ...] = ()


class _Refused(LogDenied):
    """A broker refuses the connection. One that closes it without an answer does not: it may be stopping."""


def handshake(servers: Sequence[str], settings: KafkaSettings) -> Handshake:
    """Log in to the first broker that admits it.

    Raises LogUnavailable, with the reason of each broker, when none does.
    """
    context = tls_context(settings)
    _check_login(settings)
    timeout = max(_MIN_ANSWER_SECONDS, _ANSWER_SECONDS / len(servers))
    reasons: dict[str, list[str]] = {}
    denied = False
    for server in servers:
        try:
            return _log_in_to(server, settings, context, timeout)
        except TimeoutError:
            reasons.setdefault(
                f"it takes the connection, and does not answer within {timeout:.1f} s", []
            ).append(server)
        except LogUnavailable as refusal:
            denied = denied or isinstance(refusal, LogDenied)
            reasons.setdefault(str(refusal), []).append(server)
    kind = LogDenied if denied else LogUnavailable
    raise kind("; ".join(f"Kafka at {', '.join(names)}: {reason}" for reason, names in reasons.items()))


def _check_login(settings: KafkaSettings) -> None:
    if not settings.security_protocol.startswith("SASL_"):
        return
    if settings.sasl_mechanism and settings.sasl_mechanism not in _WITH_PASSWORD:
        raise LogDenied(
            f"kafka.sasl_mechanism {settings.sasl_mechanism} cannot be used here: use one of"
            f" {', '.join(sorted(_WITH_PASSWORD))}"
        )
    needed = ("sasl_mechanism", "sasl_username", "sasl_password")
    missing = [f"kafka.{name}" for name in needed if not getattr(settings, name)]
    if missing:
        raise LogDenied(
            f"kafka.security_protocol is {settings.security_protocol}: set {', '.join(missing)} too"
        )


def _log_in_to(
    server: str, settings: KafkaSettings, context: ssl.SSLContext | None, timeout: float
) -> Handshake:
    """Connect and log in to a broker. Raises TimeoutError when it connects and then does not answer."""
    host, port = parse_address(server, KAFKA_PORT)
    with (
        closing(connect(host, port, timeout)) as plain,
        closing(_wrap_tls(plain, host, context)) as connection,
    ):
        client = _Client(connection, host)
        client.request(ApiVersionsRequest(version=0), "It may not be Kafka.")
        if settings.security_protocol.startswith("SASL_"):
            _authenticate(client, settings)
        hint = (
            "It may want a login: set kafka.security_protocol to SASL_PLAINTEXT or SASL_SSL,"
            " and the kafka.sasl settings."
        )
        brokers = client.request(MetadataRequest(version=1, topics=[]), hint).brokers
        return Handshake(
            server, _certificate_expiry(connection), tuple((broker.host, broker.port) for broker in brokers)
        )


def connect(host: str, port: int, timeout: float = _ANSWER_SECONDS) -> socket.socket:
    """Connect to a broker, with a timeout for each answer. Raises LogUnavailable with the reason."""
    try:
        connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
    except socket.gaierror as error:
        raise LogUnavailable(
            f"the name {host} cannot be resolved ({error.strerror}): correct log, or the DNS of this machine"
        ) from None
    except TimeoutError:
        raise LogUnavailable(
            f"no connection within {_CONNECT_SECONDS:.0f} s: is the broker running, and does a firewall let"
            " us through?"
        ) from None
    except OSError as error:
        raise LogUnavailable(
            f"no connection ({error.strerror or error}): is the broker running, and is its address in log"
            " right?"
        ) from None
    connection.settimeout(timeout)
    return connection


def _wrap_tls(plain: socket.socket, host: str, context: ssl.SSLContext | None) -> socket.socket:
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
            "it closed the connection in the TLS handshake: correct the port in log, or"
            " kafka.security_protocol"
        ) from None


def _tls_reason(error: ssl.SSLError, host: str) -> str:
    explanation = explain_tls_error(error, host)
    return f"{explanation.text}: {_REMEDIES[explanation.fault]}"


def _authenticate(client: "_Client", settings: KafkaSettings) -> None:
    mechanism = settings.sasl_mechanism
    response = client.request(
        SaslHandshakeRequest(version=1, mechanism=mechanism),
        "It may take no login: correct kafka.security_protocol.",
    )
    if response.error_code == _ILLEGAL_SASL_STATE:
        without = settings.security_protocol.replace("SASL_SSL", "SSL").replace("SASL_", "")
        raise _Refused(
            f"this port takes no login: set kafka.security_protocol to {without}, or correct the port in log"
        )
    if response.error_code == _UNSUPPORTED_MECHANISM:
        offered = ", ".join(sorted(response.mechanisms)) or "none"
        raise _Refused(f"the broker does not offer kafka.sasl_mechanism {mechanism}; it offers {offered}")
    if response.error_code:
        raise _Refused(f"the login failed: {for_code(response.error_code).__name__}")
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    sasl = get_sasl_mechanism(mechanism)(
        host=client.host,
        sasl_plain_username=settings.sasl_username,
        sasl_plain_password=password,
        security_protocol="SASL_SSL",
    )
    wrong = (
        f"the broker refused the SASL login of {settings.sasl_username}:"
        " correct kafka.sasl_username and kafka.sasl_password"
    )
    try:
        while not sasl.is_done():
            response = client.request(SaslAuthenticateRequest(version=0, auth_bytes=sasl.auth_bytes()), wrong)
            if response.error_code:
                raise _Refused(wrong)
            sasl.receive(response.auth_bytes)
    except (SaslAuthenticationFailedError, ValueError):
        raise _Refused(wrong) from None
    if not sasl.is_authenticated():
        raise _Refused(wrong)


class _Client:
    """A client that sends requests over a socket, one after the other."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.host = host
        self._connection = connection
        self._protocol = KafkaProtocol(client_id="ingest")

    def request(self, request: Any, hint: str) -> Any:
        """Send a request and return the response.

        `hint` is in the error when the broker closes the connection instead. Raises LogUnavailable,
        TimeoutError.
        """
        self._protocol.send_request(request)
        try:
            self._connection.sendall(self._protocol.send_bytes())
            is_first = True
            while data := self._connection.recv(65536):
                if is_first and data.startswith(_TLS_ALERT):
                    raise _Refused(
                        "the port expects TLS: set kafka.security_protocol to SSL or SASL_SSL, or correct the"
                        " port in log"
                    )
                is_first = False
                for _, response in self._protocol.receive_bytes(data):
                    return response
        except TimeoutError:
            raise
        except ssl.SSLError as error:
            raise _Refused(_tls_reason(error, self.host)) from None
        except OSError:
            raise LogUnavailable(f"it closed the connection. {hint}") from None
        except KafkaError:
            raise _Refused(f"its answer cannot be read. {hint}") from None
        raise LogUnavailable(f"it closed the connection. {hint}")


def _certificate_expiry(connection: socket.socket) -> datetime | None:
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not certificate:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context; None when `security_protocol` has no TLS.

    Raises LogDenied for files that cannot be used, which may be in the middle of a renewal.
    """
    if settings.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise LogDenied("kafka.ssl_keyfile is set without kafka.ssl_certfile: set both, or neither")
    for setting in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(settings, setting)
        try:
            if file is not None:
                Path(file).read_bytes()
        except OSError as error:
            raise LogDenied(f"kafka.{setting} {file} cannot be read: {error.strerror}") from None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except ssl.SSLError:
        raise LogDenied(f"kafka.ssl_cafile {settings.ssl_cafile} holds no certificate in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ssl_certfile:
        _load_certificate(context, settings.ssl_certfile, settings.ssl_keyfile)
    return context


def _load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    key = f"kafka.ssl_keyfile {keyfile}" if keyfile else f"the key in kafka.ssl_certfile {certfile}"
    is_encrypted = False

    def no_passphrase() -> bytes:
        """Return an empty passphrase: OpenSSL would otherwise ask on the terminal and wait for ever."""
        nonlocal is_encrypted
        is_encrypted = True
        return b""

    try:
        context.load_cert_chain(certfile, keyfile, no_passphrase)
    except ssl.SSLError as error:
        if is_encrypted:
            raise LogDenied(
                f"{key} is encrypted: give one without a pass phrase, readable by this user alone"
            ) from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise LogDenied(
                f"{key} does not belong to the certificate in kafka.ssl_certfile {certfile}"
            ) from None
        raise LogDenied(
            f"kafka.ssl_certfile {certfile} and {key} are not a certificate and a private key in PEM form"
        ) from None
