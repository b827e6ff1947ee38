"""Certificates made at test time, by a CA that nobody knows."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509


@dataclass(frozen=True)
class Files:
    """A certificate and its key, each in a file; `both` has the two of them."""

    cert: str
    key: str
    both: str


class Authority:
    """A CA, and the certificates that it makes, as files in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self.ca = trustme.CA()
        self.path = str(folder / f"{name}.pem")
        self.ca.cert_pem.write_to_path(self.path)

    def issue(
        self, name: str, *hosts: str, key_type: trustme.KeyType = trustme.KeyType.ECDSA
    ) -> Files:
        """Make a certificate, for this machine unless hosts are given.

        What stood in the files of that name is replaced.
        """
        made = self.ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), key_type=key_type)
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        key = made.private_key_pem.bytes()
        files = Files(*(str(self._folder / f"{name}.{end}") for end in ("pem", "key", "both")))
        for path, content in ((files.cert, chain), (files.key, key), (files.both, chain + key)):
            Path(path).write_bytes(content)
        return files

    def spoil(self, files: Files, part: str) -> None:
        """Break a certificate that was made: its `cert`, its `key`, or that they fit each other."""
        if part == "fit":
            Path(files.cert).write_text(Path(self.issue("spoiler").cert).read_text())
        else:
            Path(getattr(files, part)).write_text("-----BEGIN CERTIFICATE-----\nhalf of")

    def for_clients(self, files: Files | None = None) -> ssl.SSLContext:
        """A context that trusts this CA alone, with a certificate to show if there is one."""
        context = ssl.create_default_context(cafile=self.path)
        if files is not None:
            context.load_cert_chain(files.cert, files.key)
        return context

    def for_servers(self, files: Files, clients: Authority | None = None) -> ssl.SSLContext:
        """A context of a server; with `clients` it asks for a certificate that they made."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.cert, files.key)
        if clients is not None:
            context.load_verify_locations(clients.path)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def serial(tls: ssl.SSLObject) -> int:
    """The number of the certificate that the other side has shown."""
    shown = tls.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def serial_of(files: Files) -> int:
    """The number of the certificate in a file."""
    return x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number
