"""Writes servers as a file has them."""

from __future__ import annotations

from collections.abc import Mapping

import tomli_w

from mvllm_router.config.address import default_name
from mvllm_router.config.masking import HIDDEN
from mvllm_router.config.model import ServerSpec

_SECRET = ("api_key", "headers")


def entry_of(spec: ServerSpec) -> dict[str, object]:
    """Return the keys of an entry that is read as `spec`, without those that have their default.

    Paths of files are not among them.
    """
    wanted: dict[str, object] = {
        "url": spec.url,
        "name": None if spec.name == default_name(spec.url) else spec.name,
        "engine": None if spec.engine == "auto" else spec.engine,
        "max_concurrent_requests": spec.max_concurrent_requests,
        "weight": None if spec.weight == 1.0 else spec.weight,
        "models": dict(spec.aliases) or list(spec.models) or None,
        "api_key": spec.api_key,
        "headers": dict(spec.headers) or None,
        "tls_verify": None if spec.tls_verify else False,
        "tags": list(spec.tags) or None,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def inline_table(entry: Mapping[str, object], *, masked: bool = False) -> str:
    """Return `{ url = "http://gpu1:8000", weight = 2.0 }`; `masked`: without secrets in it."""
    pairs = [
        f'{_key(key)} = "{HIDDEN}"' if masked and key in _SECRET else pair(key, value)
        for key, value in entry.items()
    ]
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


def table_lines(header: str, entry: Mapping[str, object]) -> str:
    """Return a table of its own under `header`, without a line break at its end."""
    return "\n".join([header, *(pair(key, value) for key, value in entry.items())])


def pair(key: str, value: object) -> str:
    """Return `weight = 2.0`."""
    return f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return tomli_w.dumps({key: True}).removesuffix(" = true\n")


def _value(value: object) -> str:
    # tomli-w would write lists and tables over several lines: they have to fit into the file's one.
    if isinstance(value, Mapping):
        return inline_table(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").removesuffix("\n")
