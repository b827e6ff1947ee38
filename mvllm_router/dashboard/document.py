"""Reads the router's documents, which an older router may send without some keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvllm_router.config.problems import printable

Document = Mapping[str, Any]

_ENDLESS = 1e18  # no figure of a router is that large, nor NaN, which is not below it either
NOTHING = "–"  # what is not known: neither 0 nor empty


def look_up(document: Document, *path: str) -> Any:
    """Return what stands at the end of `path`, None where there is no such thing."""
    found: Any = document
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def number(document: Document, *path: str) -> float | None:
    """Return a number of the document, None where there is none."""
    found = look_up(document, *path)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    return found if abs(found) < _ENDLESS else None


def text(document: Document, *path: str) -> str:
    """Return a text of the document fit for a terminal; "" where there is none."""
    found = look_up(document, *path)
    return "" if found is None else printable(str(found))


def texts(document: Document, *path: str) -> list[str]:
    """Return a list of texts, empty where there is none."""
    found = look_up(document, *path)
    return [printable(str(one)) for one in found] if isinstance(found, list) else []


def entries(document: Document, *path: str) -> list[Document]:
    """Return a list of objects, without what is none."""
    found = look_up(document, *path)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
