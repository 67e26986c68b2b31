"""The TLS context of the settings, with errors that name the file and the setting."""

import ssl
from pathlib import Path

from ingest.errors import LogDenied
from ingest.log.kafka_settings import KafkaSettings


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """Return the TLS context; None when `security_protocol` has no TLS.

    Raises LogDenied for files that cannot be used, which may be in the middle of a renewal.
    """
    if settings.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise LogDenied("kafka.ssl_keyfile is set without kafka.ssl_certfile: set both, or neither")
    for setting in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        _require_readable(setting, getattr(settings, setting))
    context = _create_context(settings.ssl_cafile)
    if settings.ssl_certfile:
        _load_certificate(context, settings.ssl_certfile, settings.ssl_keyfile)
    return context


def _require_readable(setting: str, file: str | None) -> None:
    try:
        if file is not None:
            Path(file).read_bytes()
    except OSError as error:
        raise LogDenied(f"kafka.{setting} {file} cannot be read: {error.strerror}") from None


def _create_context(cafile: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise LogDenied(f"kafka.ssl_cafile {cafile} holds no certificate in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
