"""TLS: the certificate that clients are shown, and the trust that servers are given."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import lru_cache

from mvllm_router.config import ServerSpec
from mvllm_router.config.pem import stamp

# Contexts are kept for so many different servers; making one reads all certificates of the system,
# which takes 20 ms.
_KEPT = 512

# OpenSSL's words for what people meet most often. The others are shown as they are.
_PLAIN = {
    "KEY_VALUES_MISMATCH": "the key does not fit the certificate",
    "NO_CERTIFICATE_ASSIGNED": "the key does not fit the certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "RECORD_LAYER_FAILURE": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of the client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS from 1.2 on",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS from 1.2 on",
}


class TlsError(Exception):
    """A certificate or a key that cannot be used; the text says which and why."""


class Certificate:
    """The router's own certificate. `context` is for the listener, for as long as that lives.

    What the files hold may change: each handshake gets the certificate of its time. A context
    into which another certificate is loaded would not do: it keeps the old one beside a new one
    with another kind of key, and neither when the new key does not fit.
    """

    def __init__(self, cert: str, key: str) -> None:
        """Read the files `cert` and `key`.

        Raises:
            TlsError: they cannot be used.
        """
        self._files = (cert, key)
        self._seen = stamp(self._files)
        self._current = self.context = _server_context(cert, key)
        self.context.sni_callback = self._choose  # called whether or not a name is asked for

    def _choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        tls.context = self._current

    def renew(self) -> bool:
        """Use what the files hold now; return False if that is what they held before.

        Raises:
            TlsError: it cannot be used. It is not tried again, and the old one stays.
        """
        now = stamp(self._files)
        if now == self._seen:
            return False
        self._seen = now
        self._current = _server_context(*self._files)
        return True


def changed_files(servers: Iterable[ServerSpec]) -> tuple[str, ...]:
    """New stamps of the servers whose CA, certificate or key is not what was read for them."""
    stamps = [
        (spec.tls_files, stamp((spec.tls_ca, spec.tls_cert, spec.tls_key))) for spec in servers
    ]
    return tuple(now for read, now in stamps if now != read)


def client_context(spec: ServerSpec) -> ssl.SSLContext:
    """The context for connections to a server; the same one as long as nothing of it changes.

    Raises:
        TlsError: its CA, certificate or key cannot be used.
    """
    return _client_context(
        spec.tls_verify, spec.tls_ca, spec.tls_cert, spec.tls_key, spec.tls_files
    )


@lru_cache(_KEPT)
def _client_context(verify: bool, ca: str, cert: str, key: str, content: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca or None)
        # Some builds leave it to the settings of the system; these may ask for more.
        lowest = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        context.minimum_version = ssl.TLSVersion(lowest)
    except (OSError, ValueError) as error:
        raise TlsError(f"the CA {ca} cannot be used: {explain(error)}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert:
        _load(context, cert, key)
    return context


def _server_context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs the server much and the client little
    context.set_alpn_protocols(["http/1.1"])
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    def no_password() -> str:
        # Else OpenSSL would ask for one on the terminal, and wait.
        raise TlsError(f"the key {key or cert} is encrypted: store it without a passphrase")

    try:
        context.load_cert_chain(cert, key or None, password=no_password)
    except (OSError, ValueError) as error:
        files = f"{cert} with the key {key}" if key else cert
        raise TlsError(f"the certificate {files} cannot be used: {explain(error)}") from None


def explain(error: BaseException) -> str:
    """What went wrong, in a few words for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _PLAIN.get(error.reason, error.reason.replace("_", " ").lower())
    if isinstance(error, ssl.SSLError) and "PEM lib" in str(error):
        return "it is not in PEM format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
