"""What stands behind `/`: words that a server has to have, or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mvllm_router.dashboard.document import Document, text, texts

# `model:qwen` looks there alone; a bare word looks at all of them.
FIELDS: dict[str, Callable[[Document], list[str]]] = {
    "name": lambda server: [text(server, "name")],
    "state": lambda server: [text(server, "state")],
    "engine": lambda server: [text(server, "engine")],
    "model": lambda server: texts(server, "models"),
    "tag": lambda server: texts(server, "tags"),
    "url": lambda server: [text(server, "url")],
}


@dataclass(frozen=True, slots=True)
class Word:
    """One condition: `needle` stands in one of the `fields`, or in none of them."""

    needle: str
    fields: tuple[str, ...]
    inverse: bool

    def holds(self, server: Document) -> bool:
        found = any(
            self.needle in value.lower() for field in self.fields for value in FIELDS[field](server)
        )
        return found is not self.inverse


def parse(typed: str) -> tuple[Word, ...]:
    """Return the conditions of a filter; all of them have to hold."""
    return tuple(_word(part) for part in typed.lower().split() if part not in ("!", "-"))


def _word(part: str) -> Word:
    inverse = part.startswith("!")
    part = part.removeprefix("!")
    field, colon, needle = part.partition(":")
    if colon and field in FIELDS:
        return Word(needle, (field,), inverse)
    return Word(part, tuple(FIELDS), inverse)


def matches(server: Document, words: tuple[Word, ...], *, faults_only: bool = False) -> bool:
    """Return whether a server is shown; with `faults_only`, only when it is not up."""
    if faults_only and text(server, "state") == "up":
        return False
    return all(word.holds(server) for word in words)
