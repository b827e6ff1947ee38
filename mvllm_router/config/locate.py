"""Where each key and value of a TOML document stands, which the standard parser does not tell.

The scanner reads a text that `tomllib` has accepted already. It can therefore take much for
granted, and it reads what is new in TOML 1.1 (line breaks in inline tables) as well.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple, TypeAlias

KeyPath: TypeAlias = "tuple[str | int, ...]"

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Up to two quotes may stand right before the three that close a multi-line string.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
# Numbers, booleans and dates; a date may hold a space.
_SCALAR = re.compile(r"[^,\]}#\n]+")


class Span(NamedTuple):
    """A piece of the text: `line` and `column` from 1, `width` up to the end of its first line."""

    line: int
    column: int
    width: int
    start: int
    """Offset of the first character."""
    end: int
    """Offset behind the last one."""


class Spot(NamedTuple):
    """Where a key stands and where its value does.

    An element of an array has no key: both are the element. For a table with a header, the value is
    the header.
    """

    key: Span
    value: Span


class Lines:
    """Turns offsets in a text into lines and columns."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def span(self, start: int, end: int) -> Span:
        line = bisect_right(self._starts, start)
        first, last = self.bounds(line)
        return Span(line, start - first + 1, max(1, min(end, last) - start), start, end)

    def bounds(self, line: int) -> tuple[int, int]:
        """Offsets of the first character of a line and of the end of that line."""
        first = self._starts[line - 1]
        end = self.text.find("\n", first)
        return first, len(self.text) if end < 0 else end

    def __len__(self) -> int:
        return len(self._starts)


def locate(text: str) -> dict[KeyPath, Spot]:
    """Find every key and every array element of a TOML document.

    `text` must be valid TOML with line feeds as line ends (carriage returns do no harm to lines and
    columns, but a parser would have dropped them). A path names keys by text and array elements by
    number: `("servers", 0, "url")`.
    """
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.spots


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.pos = 0
        self.table: KeyPath = ()
        self.spots: dict[KeyPath, Spot] = {}
        # Number of the newest element of each array of tables.
        self.newest: dict[KeyPath, int] = {}

    def scan(self) -> None:
        self.skip_blank()
        while self.pos < len(self.text):
            if self.text[self.pos] == "[":
                self.header()
            else:
                self.pair(self.table)
            self.skip_blank()

    def header(self) -> None:
        start = self.pos
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.pos += brackets
        parts = self.key()
        self.pos += brackets
        whole = self.lines.span(start, self.pos)
        path: KeyPath = ()
        for name, span in parts[:-1]:
            path = self.enter((*path, name), span)
        name, span = parts[-1]
        path = (*path, name)
        if brackets == 2:
            self.spots.setdefault(path, Spot(span, whole))
            self.newest[path] = self.newest.get(path, -1) + 1
            path = (*path, self.newest[path])
        self.spots[path] = Spot(span, whole)
        self.table = path

    def enter(self, path: KeyPath, span: Span) -> KeyPath:
        """Go through a table, or through the newest table of an array."""
        self.spots.setdefault(path, Spot(span, span))
        return (*path, self.newest[path]) if path in self.newest else path

    def pair(self, table: KeyPath) -> None:
        parts = self.key()
        self.pos += 1  # the equals sign
        self.skip_blank()
        path = table
        for name, span in parts[:-1]:
            path = (*path, name)
            self.spots.setdefault(path, Spot(span, span))
        name, span = parts[-1]
        path = (*path, name)
        self.spots[path] = Spot(span, self.value(path))

    def key(self) -> list[tuple[str, Span]]:
        """The parts of a dotted key, with the blanks around it."""
        parts = []
        while True:
            self.skip_blank()
            start = self.pos
            quoted = self.text[start] in "\"'"
            word = self.take(_STRING if quoted else _BARE_KEY)
            parts.append((_unquoted(word) if quoted else word, self.lines.span(start, self.pos)))
            self.skip_blank()
            if self.text[self.pos] != ".":
                return parts
            self.pos += 1

    def value(self, path: KeyPath) -> Span:
        start = self.pos
        first = self.text[start]
        if first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        elif first in "\"'":
            self.take(_STRING)
        else:
            self.pos = start + len(self.take(_SCALAR).rstrip())
        return self.lines.span(start, self.pos)

    def array(self, path: KeyPath) -> None:
        index = 0
        while not self.closes("]"):
            element = (*path, index)
            span = self.value(element)
            self.spots[element] = Spot(span, span)
            index += 1

    def inline_table(self, path: KeyPath) -> None:
        while not self.closes("}"):
            self.pair(path)

    def closes(self, bracket: str) -> bool:
        """Go past the opening bracket or a comma; True when nothing but the end follows."""
        self.skip_blank()
        if self.text[self.pos] != bracket:
            self.pos += 1
            self.skip_blank()
        if self.text[self.pos] != bracket:
            return False
        self.pos += 1
        return True

    def skip_blank(self) -> None:
        self.take(_BLANK)

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise ValueError(f"not a TOML document at offset {self.pos}")
        self.pos = match.end()
        return match[0]


def _unquoted(word: str) -> str:
    if "\\" not in word:
        return word[1:-1]
    from mvllm_router.config.toml import loads

    return str(loads(f"key = {word}")["key"])
