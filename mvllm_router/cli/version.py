"""`router version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from mvllm_router import __version__
from mvllm_router.cli.output import as_json

_SHOWN = ("aiohttp", "uvloop", "httptools", "msgspec")


def show_version(*, as_document: bool) -> None:
    """Print what a bug report needs."""
    versions = {
        "mvllm-router": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _installed(name) for name in _SHOWN},
    }
    if as_document:
        return as_json(versions)
    for name, value in versions.items():
        typer.echo(f"{name} {value or 'is not installed'}")
    return None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
