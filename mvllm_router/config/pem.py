"""Files with certificates and keys: whether they are there, and whether they have changed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import sha256
from pathlib import Path

from mvllm_router.config.problems import printable
from mvllm_router.config.rules import Mismatch


class Pem(Enum):
    """What a file has to hold; the value is what marks it there."""

    CERTIFICATE = b"CERTIFICATE-----"
    KEY = b"PRIVATE KEY-----"


def check_pem(name: str, path: str, *wanted: Pem) -> None:
    """Check that the file at `path`, the value of the key `name`, can be read and has all `wanted`.

    Raises Mismatch. Whether a key fits its certificate shows only when they are used.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        hint = f"it is looked for at {printable(str(Path(path).absolute()))}"
        raise Mismatch(f"the file of `{name}` cannot be read: {reason}", hint) from None
    for part in wanted:
        if part.value not in content:
            what = "certificate" if part is Pem.CERTIFICATE else "private key"
            hint = f"it is {printable(path)}"
            raise Mismatch(f"the file of `{name}` has no {what} in PEM format", hint)


def stamp(paths: Iterable[str]) -> str:
    """A mark of what these files hold, "" for no files; those that cannot be read count too."""
    contents = [_content(path) for path in paths if path]
    return sha256(b"\0".join(contents)).hexdigest() if contents else ""


def _content(path: str) -> bytes:
    try:
        return sha256(Path(path).read_bytes()).digest()
    except (OSError, ValueError):
        return b""
