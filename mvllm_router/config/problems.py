"""What can be wrong with a configuration, and how it is shown to a person."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Where no line number sets the width of the left margin.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, with the place where it can be mended.

    `line` and `column` count from 1, in characters of the file. `source_line` is fit to be shown:
    secrets in it are masked, which may move the marked part, so `caret` says where that part begins
    in `source_line` (from 1; None: at `column`). `width` is the length of the marked part.
    """

    message: str
    place: str
    line: int | None = None
    column: int | None = None
    width: int = 1
    source_line: str | None = None
    context: str | None = None
    hint: str | None = None
    label: str = "error"
    caret: int | None = None

    def render(self) -> str:
        """The problem as a few lines of plain text, without a final newline."""
        margin = " " * (len(str(self.line)) if self.line else _MARGIN)
        lines = [f"{self.label}: {self.message}", f"{margin}--> {self._address()}"]
        if self.source_line is not None:
            lines += [
                f"{margin} |",
                f"{self.line} | {self.source_line}",
                f"{margin} | {self._underline(self.source_line)}",
            ]
        lines += [f"{margin} = {note}" for note in (self.context, self.hint) if note]
        return "\n".join(lines)

    def _address(self) -> str:
        numbers = (self.line, self.column)
        return ":".join([self.place, *(str(n) for n in numbers if n is not None)])

    def _underline(self, source: str) -> str:
        start = (self.caret or self.column or 1) - 1
        marked = source[start : start + self.width]
        return _blank_copy(source[:start]) + "^" * max(1, _columns(marked))


def _blank_copy(text: str) -> str:
    """White space as wide as `text`; a tab stays a tab, to stop where it did in the line above."""
    return "".join("\t" if char == "\t" else " " * _columns(char) for char in text)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


class ConfigError(Exception):
    """A configuration that cannot be used.

    `problems` holds all that was found, warnings too, the file's first and by line.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(in_order(problems))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n\n".join(problem.render() for problem in self.problems)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """The problems by line and column; those outside of the file come last, in their order."""
    return sorted(problems, key=lambda p: (p.line is None, p.line or 0, p.column or 0))


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """A hint that names the known word nearest to `word`, or None where none is near."""
    import difflib  # only needed once something is wrong

    near = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    return f"did you mean `{near[0]}`?" if near else None


def printable(text: str) -> str:
    """`text` with all that a terminal would act on, or not show, written as an escape."""
    if text.isprintable():  # nearly always, and a dashboard asks thousands of times a second
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def mask_url(text: str) -> str:
    """`text` without what may be secret in a URL: user, password and query."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    # A password may hold any sign: all that stands before the last @ goes.
    _, at, behind = rest.rpartition("@")
    rest = re.sub(r"[?#].*", "?***", behind, flags=re.DOTALL)
    return ("***" if "@" in scheme else scheme) + separator + ("***@" if at else "") + rest
