"""Explanations of TLS errors that name the certificate at fault."""

import ssl
from dataclasses import dataclass
from enum import Enum, auto

# https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/#error-codes
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED = {18, 19}
_UNKNOWN_ISSUER = {2, 20, 21}
_OTHER_HOST = {62, 64}

# Parts of OpenSSL's reasons for alerts, which the server sends:
# https://www.rfc-editor.org/rfc/rfc8446#section-6.2
_ALERTS = {
    "CERTIFICATE_REQUIRED": "the server wants a client certificate, and none is set",
    "ALERT_HANDSHAKE_FAILURE": "the server refused the handshake; it may want a client certificate",
    "ALERT_CERTIFICATE_EXPIRED": "the server says that our client certificate has expired",
    "ALERT_CERTIFICATE_REVOKED": "the server says that our client certificate was revoked",
    "ALERT_UNKNOWN_CA": "the server does not trust the issuer of our client certificate",
    "ALERT_BAD_CERTIFICATE": "the server does not accept our client certificate",
    "ALERT_CERTIFICATE_UNKNOWN": "the server does not accept our client certificate",
    "ALERT_PROTOCOL_VERSION": "the server does not speak TLS 1.2 or newer",
    "UNSUPPORTED_PROTOCOL": "the server does not speak TLS 1.2 or newer",
}
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


class TlsFault(Enum):
    """The certificate, or the other thing, that is at fault."""

    EXPIRED = auto()
    OTHER_HOST = auto()
    UNTRUSTED = auto()
    CLIENT_CERTIFICATE = auto()
    NOT_TLS = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class TlsExplanation:
    """Why a TLS connection failed; `text` is a clause for people."""

    fault: TlsFault
    text: str

    @property
    def is_certificate(self) -> bool:
        """Return whether the server's certificate is at fault."""
        return self.fault in {TlsFault.EXPIRED, TlsFault.OTHER_HOST, TlsFault.UNTRUSTED}


def explain_tls_error(error: ssl.SSLError, host: str) -> TlsExplanation:
    """Explain why a connection to `host` failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_distrust(error, host)
    reason = error.reason or ""
    for part, meaning in _ALERTS.items():
        if part in reason:
            is_ours = "client certificate" in meaning
            return TlsExplanation(TlsFault.CLIENT_CERTIFICATE if is_ours else TlsFault.OTHER, meaning)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or any(
        part in reason for part in _NOT_TLS
    ):
        return TlsExplanation(TlsFault.NOT_TLS, "the port does not answer with TLS")
    return TlsExplanation(TlsFault.OTHER, f"TLS failed ({reason or type(error).__name__})")


def _explain_distrust(error: ssl.SSLCertVerificationError, host: str) -> TlsExplanation:
    code = error.verify_code
    if code == _EXPIRED:
        return TlsExplanation(TlsFault.EXPIRED, "the server's certificate has expired")
    if code == _NOT_YET_VALID:
        return TlsExplanation(
            TlsFault.EXPIRED, "the server's certificate is not valid yet, or this machine's clock is behind"
        )
    if code in _OTHER_HOST:
        return TlsExplanation(TlsFault.OTHER_HOST, f"the server's certificate is not for {host}")
    if code in _SELF_SIGNED:
        return TlsExplanation(
            TlsFault.UNTRUSTED,
            "the server's certificate is signed by itself, or by an authority that is not trusted here",
        )
    if code in _UNKNOWN_ISSUER:
        return TlsExplanation(
            TlsFault.UNTRUSTED,
            "the server's certificate is signed by an authority that is not trusted here, or its chain is not"
            " sent",
        )
    return TlsExplanation(
        TlsFault.UNTRUSTED, f"the server's certificate is not trusted: {error.verify_message}"
    )
