"""A configuration file: its text, what it says, and where it says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from mvllm_router.config.locate import KeyPath, Lines, Span, Spot, locate
from mvllm_router.config.masking import mask_invalid, masks
from mvllm_router.config.problems import ConfigError, Problem, printable

# Longer lines are shown in part, so that the mark stays under what it marks.
_LONGEST_LINE = 110
_BEFORE_MARK = 50

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Where(Protocol):
    """A place that values come from, and that problems with them are shown at.

    Relative paths among the values are from `folder`.
    """

    @property
    def folder(self) -> Path: ...

    def problem(
        self,
        path: KeyPath,
        message: str,
        *,
        hint: str | None = None,
        context: str | None = None,
        label: str = "error",
        at_value: bool = True,
    ) -> Problem: ...

    def describe(self, path: KeyPath) -> str:
        """The place in words, for a problem somewhere else."""


class Argument:
    """A place outside of a file: an argument, an option, an environment variable."""

    folder = Path()

    def __init__(self, place: str) -> None:
        self.place = place

    def problem(
        self,
        path: KeyPath,
        message: str,
        *,
        hint: str | None = None,
        context: str | None = None,
        label: str = "error",
        at_value: bool = True,
    ) -> Problem:
        return Problem(message, self.place, hint=hint, label=label)

    def describe(self, path: KeyPath) -> str:
        return self.place


class Document:
    """The text of a file, read. Raises ConfigError for what is not TOML.

    `place` is how the file is called in problems: its path.
    """

    def __init__(self, text: str, place: str) -> None:
        # As the parser does it, so that offsets agree; a byte order mark is no part of the text.
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        self.place = place
        self.folder = Path(place).parent
        self.lines = Lines(text)
        from mvllm_router.config.toml import loads  # costs start-up time, and not all need it

        try:
            self.data = loads(text)
            self.spots: dict[KeyPath, Spot] = locate(text)
        except RecursionError as error:
            raise ConfigError([Problem("arrays or tables are nested too deep", place)]) from error
        except ValueError as error:
            raise ConfigError([_syntax_problem(error, self.lines, place)]) from error
        self._masks = masks(self.data, self.spots)

    def problem(
        self,
        path: KeyPath,
        message: str,
        *,
        hint: str | None = None,
        context: str | None = None,
        label: str = "error",
        at_value: bool = True,
    ) -> Problem:
        """A problem at the key or the value of `path`, or else at what is nearest around it."""
        span = self._span(path, at_value)
        if span is None:
            return Problem(message, self.place, hint=hint, context=context, label=label)
        source, caret, width = self._excerpt(span)
        return Problem(
            message,
            self.place,
            line=span.line,
            column=span.column,
            width=width,
            source_line=source,
            context=context,
            hint=hint,
            label=label,
            caret=caret,
        )

    def describe(self, path: KeyPath) -> str:
        span = self._span(path, at_value=True)
        return f"line {span.line}" if span else self.place

    def address(self, path: KeyPath) -> str:
        """The file and the line of what stands at `path`: "servers.toml:12"."""
        span = self._span(path, at_value=True)
        return f"{self.place}:{span.line}" if span else self.place

    def _span(self, path: KeyPath, at_value: bool) -> Span | None:
        while path and path not in self.spots:
            path = path[:-1]
        if not path:
            return None
        spot = self.spots[path]
        return spot.value if at_value else spot.key

    def _excerpt(self, span: Span) -> tuple[str, int, int]:
        """The line of `span` without its secrets, with the column and width of `span` in it."""
        first, last = self.lines.bounds(span.line)
        caret = len(self._masked(first, span.start)) + 1
        width = len(self._masked(span.start, span.start + span.width))
        return _cropped(self._masked(first, last), caret, width)

    def _masked(self, start: int, end: int) -> str:
        pieces = []
        for mask in self._masks:
            if mask.start < end and mask.end > start:
                pieces += [self.lines.text[start : max(start, mask.start)], mask.replacement]
                start = min(mask.end, end)
        return _visible("".join([*pieces, self.lines.text[start:end]]))


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError when there is none that can be read."""
    place = str(path)
    try:
        return _decoded(path.read_bytes(), place)
    except FileNotFoundError as error:
        hint = "`router init` writes one"
        raise ConfigError([Problem("there is no such file", place, hint=hint)]) from error
    except IsADirectoryError as error:
        hint = f"name the file in it, as in {path / 'servers.toml'}"
        raise ConfigError([Problem("this is a directory, not a file", place, hint=hint)]) from error
    except PermissionError as error:
        raise ConfigError([Problem("no permission to read the file", place)]) from error
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise ConfigError([Problem(message, place)]) from error


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
        message = "the file is UTF-16, not UTF-8" if utf16 else "the file is not UTF-8"
        line = None if utf16 else raw.count(b"\n", 0, error.start) + 1
        problem = Problem(message, place, line=line, hint="save it as UTF-8")
        raise ConfigError([problem]) from error


def _syntax_problem(error: ValueError, lines: Lines, place: str) -> Problem:
    """A problem from the parser's error, which tells its position only in its message."""
    text = str(error)
    match = _POSITION.search(text)
    if match is None:
        # A number with thousands of digits, which Python refuses by itself.
        return Problem("this cannot be read as TOML: a number is too long", place)
    message = f"this is not valid TOML: {printable(text[: match.start()])}"
    if match[1] is None:
        # What is missing may have begun anywhere, so that no line is worth showing.
        return Problem(f"{message} at the end of the file", place, line=len(lines))
    line, column = int(match[1]), int(match[2])
    first, last = lines.bounds(line)
    source, caret = lines.text[first:last], column
    hint = _syntax_hint(text, source[: column - 1])
    if _inside_long_string(lines.text[:first]):
        return Problem(message, place, line=line, column=column, hint=hint)
    shown = printable(mask_invalid(source).replace("\t", " "))
    shown, caret, _ = _cropped(shown, min(caret, len(shown) + 1), 1)
    return Problem(
        message, place, line=line, column=column, source_line=shown, hint=hint, caret=caret
    )


def _syntax_hint(message: str, before: str) -> str | None:
    if before.count("{") > before.count("}") and message.startswith(
        ("Unclosed", "Invalid initial")
    ):
        return "a table in { } stands on one line; a long entry can have a [[servers]] table"
    if message.startswith("Invalid value"):
        return 'text stands in quotes, as in url = "http://gpu1:8000"'
    return None


def _inside_long_string(before: str) -> bool:
    return before.count('"""') % 2 == 1 or before.count("'''") % 2 == 1


def _visible(text: str) -> str:
    """`text`, as long as before, without what a terminal would act on or not show; tabs stay."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char == "\t" else "\ufffd" for char in text])


def _cropped(line: str, caret: int, width: int) -> tuple[str, int, int]:
    """A part of a long line around the column `caret`, with that column and width in it."""
    if len(line) <= _LONGEST_LINE:
        return line, caret, width
    start = max(0, min(caret - _BEFORE_MARK, len(line) - _LONGEST_LINE))
    part = line[start : start + _LONGEST_LINE]
    if start:
        part = "…" + part[1:]
    if start + _LONGEST_LINE < len(line):
        part = part[:-1] + "…"
    caret -= start
    return part, caret, max(1, min(width, len(part) - caret + 1))
