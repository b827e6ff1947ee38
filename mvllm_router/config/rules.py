"""Rules for single values: which type, which range, and what to say when a value breaks them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

from mvllm_router.config.problems import did_you_mean, mask_url, printable

Scalar: TypeAlias = "bool | int | float | str"
Value: TypeAlias = "Scalar | tuple[str, ...]"
ValueType: TypeAlias = "type[bool] | type[int] | type[float] | type[str] | type[tuple[str, ...]]"

_SHOWN_LENGTH = 60
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NOUNS: dict[type[object], str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    tuple: "an array",
}
_KINDS: dict[type[object], str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
    type(None): "nothing",
}


class Mismatch(ValueError):
    """A value that breaks a rule; `hint` says how to mend it, where that is known.

    `item` is the number of the wrong element of an array, from 0.
    """

    def __init__(self, message: str, hint: str | None = None, item: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.item = item


@dataclass(frozen=True, slots=True)
class Need:
    """A choice that works only with a module which `extra` of this package installs."""

    choice: str
    module: str
    extra: str

    def check(self) -> None:
        """Raise Mismatch if the module is not there."""
        if find_spec(self.module) is None:
            raise Mismatch(
                f'"{self.choice}" needs the Python package `{self.module}`, which is not installed',
                f"pip install 'mvllm-router[{self.extra}]'",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a value must be.

    `minimum` and `maximum` bound a number (both belong to the range), or the length of a string.
    `choices` are the values allowed, in lower case; they are accepted in any case. `plugins` is a
    group of entry points whose names are allowed beside them, `needs` is what some of them need. A
    `secret` is never shown. With the type tuple the value is an array of strings, each of which
    `item` brings into its one spelling; it raises Mismatch for what is none of its kind.
    """

    name: str = ""
    type: ValueType
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    plugins: str = ""
    needs: tuple[Need, ...] = ()
    unit: str = ""
    secret: bool = False
    item: Callable[[str], str] | None = None

    def check(self, value: object) -> Value:
        """The value in the rule's own type (a whole number may stand for a float).

        Raises Mismatch, which names the value, unless it is secret, and what is expected.
        """
        if self.type is tuple:
            return self._items(value)
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = _as_float(value)
        if type(value) is not self.type:
            raise self._mismatch(value, _type_hint(self.type, value))
        assert isinstance(value, (bool, int, float, str))
        if self.choices:
            return self._choice(value)
        if not self._in_range(value):
            raise self._mismatch(value)
        if self.secret:
            self._check_header_safe(str(value))
        return value

    def read(self, text: str) -> Value:
        """The value that a text from the environment or the command line stands for.

        Elements of an array are set apart by commas. Raises Mismatch as `check` does.
        """
        converted = _from_text(self.type, text.strip())
        return self.check(text if converted is None else converted)

    def expected(self) -> str:
        """What the value must be, in words: "a whole number from 0 to 65535"."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        noun = _NOUNS[self.type] + (f" of {self.unit}" if self.unit else "")
        if self.type is str:
            return f"{noun} that is not empty" if self.minimum else noun
        if self.minimum is not None and self.maximum is not None:
            return f"{noun} from {plain(self.minimum)} to {plain(self.maximum)}"
        return noun if self.minimum is None else f"{noun}, {plain(self.minimum)} or more"

    def _items(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            hint = f"write {self.name} = [{shown(value)}]" if isinstance(value, str) else None
            raise self._mismatch(value, hint)
        # A dictionary keeps each once, in the order given.
        return tuple(dict.fromkeys(self._item(n, one) for n, one in enumerate(value)))

    def _item(self, number: int, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise Mismatch(
                f"`{self.name}` must be {self.expected()}, but {shown(value)} is in it", item=number
            )
        try:
            return self.item(value) if self.item else value
        except Mismatch as error:
            message = f"`{self.name}` must be {self.expected()}, but {error.message}"
            raise Mismatch(message, error.hint, number) from None

    def _choice(self, value: Scalar) -> str:
        lowered = str(value).lower()
        if lowered in self.choices:
            for need in self.needs:
                if need.choice == lowered:
                    need.check()
            return lowered
        if self.plugins and value in _installed(self.plugins):
            return str(value)
        raise self._mismatch(value, did_you_mean(lowered, self.choices))

    def _in_range(self, value: Scalar) -> bool:
        measure = len(value) if isinstance(value, str) else value
        above = self.minimum is None or measure >= self.minimum
        below = self.maximum is None or measure <= self.maximum
        finite = isinstance(measure, int) or math.isfinite(measure)
        return finite and above and below

    def _check_header_safe(self, value: str) -> None:
        # A key travels in a header, where a line break would begin another one.
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise Mismatch(f"`{self.name}` has a line break or another control character in it")

    def _mismatch(self, value: object, hint: str | None = None) -> Mismatch:
        found = kind(value) if self.secret else shown(value)
        return Mismatch(f"`{self.name}` must be {self.expected()}, but it is {found}", hint)


def _installed(group: str) -> frozenset[str]:
    """The names of the entry points of a group; looked for only when a name is not ours."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group=group))


def plain(number: float) -> str:
    """A number without an empty fraction: 300.0 as 300."""
    return str(int(number)) if number == int(number) else str(number)


def shown(value: object) -> str:
    """A value as TOML would write it, short, on one line and without a password in a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = printable(mask_url(value) if "://" in value else value)
        return f'"{text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…"}"'
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_LENGTH:
        return "a huge number"
    return str(value) if isinstance(value, (int, float)) else kind(value)


def kind(value: object) -> str:
    """The type of a value in words, for where the value itself must not be shown."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _type_hint(wanted: type[object], value: object) -> str | None:
    if isinstance(value, str) and _from_text(wanted, value) is not None:
        return "write it without quotes"
    return None


def _from_text(wanted: type[object], text: str) -> Value | None:
    """The value that `text` spells, or None when it spells none of that type."""
    if wanted is bool:
        return _BOOLEANS.get(text.lower())
    if wanted is str:
        return text
    if wanted is tuple:
        return tuple(part for part in map(str.strip, text.split(",")) if part)
    try:
        return int(text) if wanted is int else float(text)
    except ValueError:
        return None
