"""Puts a change of a server into the text of a file, and leaves all the rest of it as it is.

What is new is written where the scanner knows the place to be. The result is read again: if it does
not say exactly what was meant, the file has a shape that was not thought of, and nothing is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from mvllm_router.config.document import Document
from mvllm_router.config.entries import entry_names
from mvllm_router.config.locate import KeyPath, Span
from mvllm_router.config.render import inline_table, pair, table_lines

# Blanks and a comment up to the end of a line.
_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_BLANK_LINE = re.compile(r"\n(?:[ \t]*\n)?")
_COMMA = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*,")
_INDENT = "    "


class CannotEdit(Exception):
    """The change cannot be put into the file; the text says what to write by hand."""


def with_server(text: str, entry: Mapping[str, object]) -> str:
    """Return the text with one more server, behind the others.

    Raises:
        CannotEdit: the file has a shape in which that is not possible.
        ConfigError: the text is not TOML.
    """

    def meant(data: dict[str, Any]) -> None:
        table = data.setdefault("servers", {})
        (table if isinstance(table, list) else table.setdefault("servers", [])).append(dict(entry))

    return _edited(text, _add(entry), meant, f"add {inline_table(entry, masked=True)}")


def without_server(text: str, name: str) -> str:
    """Return the text without the entry of a server; see `with_server` for what it raises."""

    def meant(data: dict[str, Any]) -> None:
        *path, number = path_of[0]
        del _at(data, path)[number]

    path_of: list[KeyPath] = []

    def work(document: Document) -> str:
        path_of.append(_path_of(document, name))
        return _remove(document, path_of[0])

    return _edited(text, work, meant, f"remove the entry of `{name}`")


def with_values(text: str, name: str, values: Mapping[str, object]) -> str:
    """Return the text with other values in the entry of a server; None takes a key out.

    See `with_server` for what it raises.
    """
    for key, value in values.items():
        text = _with_value(text, name, key, value)
    return text


def _with_value(text: str, name: str, key: str, value: object) -> str:
    path_of: list[KeyPath] = []

    def meant(data: dict[str, Any]) -> None:
        *path, number = path_of[0]
        entries = _at(data, path)
        if isinstance(entries[number], str):
            entries[number] = {"url": entries[number]}
        if value is None:
            entries[number].pop(key, None)
        else:
            entries[number][key] = value

    def work(document: Document) -> str:
        path_of.append(_path_of(document, name))
        if value is not None:
            return _set(document, path_of[0], key, value)
        return _unset(document, path_of[0], key)

    wanted = f"take `{key}` out of" if value is None else f"put {pair(key, value)} into"
    return _edited(text, work, meant, f"{wanted} the entry of `{name}`")


def _edited(
    text: str,
    work: Callable[[Document], str],
    meant: Callable[[dict[str, Any]], None],
    by_hand: str,
) -> str:
    """Return what `work` makes of the text, if it says what `meant` makes of its data."""
    from mvllm_router.config.toml import loads

    mark = "\ufeff" if text.startswith("\ufeff") else ""
    plain = text.removeprefix(mark).replace("\r\n", "\n")
    end = "\r\n" if "\r\n" in text else "\n"
    refusal = CannotEdit(f"the file has a shape that is not changed by itself: {by_hand} by hand")
    if mark + plain.replace("\n", end) != text:
        raise CannotEdit(f"the file has line ends of two kinds: {by_hand} by hand")
    document = Document(plain, "servers.toml")
    expected = deepcopy(document.data)
    try:
        edited = work(document)
        meant(expected)
        if _meaning(loads(edited)) != _meaning(expected):
            raise refusal
    except (ValueError, LookupError, AttributeError, TypeError):
        raise refusal from None
    return mark + edited.replace("\n", end)


def _meaning(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data without an empty list of servers: it may as well not be there."""
    servers = data.get("servers")
    if isinstance(servers, Mapping):
        servers = {key: value for key, value in servers.items() if key != "servers" or value}
    return {**data, "servers": servers or None}


def _path_of(document: Document, name: str) -> KeyPath:
    for path, found in entry_names(document.data):
        if found == name:
            return path
    raise CannotEdit(f"the file has no server `{name}`")


def _at(data: Any, path: list[str | int]) -> Any:
    for part in path:
        data = data[part]
    return data


# --- adding


def _add(entry: Mapping[str, object]) -> Callable[[Document], str]:
    def work(document: Document) -> str:
        text, servers = document.lines.text, document.data.get("servers")
        if servers is None:
            return f"{_with_line_end(text)}\n[servers]\n{_array(entry)}"
        path: KeyPath = ("servers",) if isinstance(servers, list) else ("servers", "servers")
        if path not in document.spots:
            return _add_array(document, entry)
        span = document.spots[path].value
        if text.startswith("[[", span.start):
            return _add_table(document, path, entry)
        return _add_element(document, path, span, entry)

    return work


def _array(entry: Mapping[str, object]) -> str:
    return f"servers = [\n{_INDENT}{inline_table(entry)},\n]\n"


def _add_array(document: Document, entry: Mapping[str, object]) -> str:
    """There is a header `[servers]` and nothing below it."""
    text, header = document.lines.text, document.spots[("servers",)].value
    line_end = _line_end(text, header.end)
    return f"{text[:line_end]}\n{_array(entry)}".removesuffix("\n") + (text[line_end:] or "\n")


def _add_table(document: Document, path: KeyPath, entry: Mapping[str, object]) -> str:
    """The servers are tables of their own: one more behind the last one."""
    text = document.lines.text
    last = max(spot for spot in document.spots if spot[:-1] == path)
    header = document.spots[last].value
    end = _line_end(text, _end_of(document, last))
    lines = table_lines(text[header.start : header.end], entry)
    return f"{text[:end]}\n\n{lines}" + (text[end:] or "\n")


def _add_element(
    document: Document, path: KeyPath, array: Span, entry: Mapping[str, object]
) -> str:
    text, new = document.lines.text, inline_table(entry)
    count = len(_at(document.data, list(path)))
    if not count:
        start = array.start + 1
        breaks = "\n" in text[start : array.end]
        piece = f"\n{_INDENT}{new}," + ("" if breaks else "\n")
        return text[:start] + piece + text[start:]
    last = document.spots[(*path, count - 1)].value
    indent = text[text.rfind("\n", 0, last.start) + 1 : last.start]
    comma = _COMMA.match(text, last.end)
    rest = _REST_OF_LINE.match(text, comma.end() if comma else last.end)
    same_line = not comma or "\n" not in text[last.end : comma.end()]
    if indent.strip(" \t") or rest is None or not same_line:
        return f"{text[: last.end]}, {new}{text[last.end :]}"
    head = text[: last.end] + ("" if comma else ",") + text[last.end : rest.end()]
    return f"{head}\n{indent}{new},{text[rest.end() :]}"


# --- changing


def _set(document: Document, path: KeyPath, key: str, value: object) -> str:
    text, spot = document.lines.text, document.spots.get((*path, key))
    if spot is not None:
        rendered = pair(key, value).partition(" = ")[2]
        return text[: spot.value.start] + rendered + text[spot.value.end :]
    entry = document.spots[path].value
    if isinstance(_at(document.data, list(path)), str):
        table = inline_table({"url": _at(document.data, list(path)), key: value})
        return text[: entry.start] + table + text[entry.end :]
    if text.startswith("[", entry.start):  # a table of its own
        url = document.spots[(*path, "url")]
        end = _line_end(text, url.value.end)
        indent = text[text.rfind("\n", 0, url.key.start) + 1 : url.key.start]
        return f"{text[:end]}\n{indent}{pair(key, value)}{text[end:]}"
    end = _end_of(document, path, inside=True)
    return f"{text[:end]}, {pair(key, value)}{text[end:]}"


def _unset(document: Document, path: KeyPath, key: str) -> str:
    text, spot = document.lines.text, document.spots.get((*path, key))
    if spot is None:
        return text
    if text.startswith("[", document.spots[path].value.start):
        return _without_lines(text, spot.key.start, spot.value.end)
    return _without_item(text, spot.key.start, spot.value.end)


# --- removing


def _remove(document: Document, path: KeyPath) -> str:
    text, entry = document.lines.text, document.spots[path].value
    if text.startswith("[[", entry.start):
        end = _line_end(text, _end_of(document, path))
        behind = _BLANK_LINE.match(text, end)
        return text[: _line_start(text, entry.start)] + text[behind.end() if behind else end :]
    comma = _COMMA.match(text, entry.end)
    end = comma.end() if comma else entry.end
    begins_line = not text[_line_start(text, entry.start) : entry.start].strip(" \t")
    if begins_line and _REST_OF_LINE.match(text, end) and "\n" not in text[entry.end : end]:
        return _without_lines(text, entry.start, end)
    return _without_item(text, entry.start, entry.end)


def _without_lines(text: str, start: int, end: int) -> str:
    """Take out the lines from `start` to `end`, with the comment behind them."""
    return text[: _line_start(text, start)] + text[_line_end(text, end) + 1 :]


def _without_item(text: str, start: int, end: int) -> str:
    """Take an item out of a list in brackets, with the comma behind it or before it."""
    comma = _COMMA.match(text, end)
    if comma:
        return text[:start] + text[comma.end() :].lstrip(" \t")
    before = text[:start].rstrip(" \t\n")
    return (before[:-1] if before.endswith(",") else text[:start]) + text[end:]


# --- places


def _end_of(document: Document, path: KeyPath, *, inside: bool = False) -> int:
    """Return where the last of what belongs to `path` ends; `inside`: not the entry itself."""
    return max(
        spot.value.end
        for other, spot in document.spots.items()
        if other[: len(path)] == path and (other != path or not inside)
    )


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _with_line_end(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"
