"""Which parts of a file must not be shown when a line of it is quoted.

In a file that can be read, only the values of keys known to be harmless are shown: a misspelt
`api_key` holds a secret all the same. A line of a file that cannot be read is cut where a secret
may begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mvllm_router.config.auth_keys import AUTH_KEY_NAMES, AUTH_SOURCES
from mvllm_router.config.launch_keys import LAUNCH_KEY_NAMES
from mvllm_router.config.locate import KeyPath, Spot
from mvllm_router.config.problems import did_you_mean, mask_url, printable
from mvllm_router.config.server_keys import SERVER_KEY_NAMES
from mvllm_router.config.settings import SETTINGS

HIDDEN = "***"

_SECRET_SERVER_KEYS = {"api_key", "headers"}
_SECRET_AUTH_KEYS = {"key", "key_file"}
# What an engine is given as it is may hold anything, keys too.
_SECRET_LAUNCH_KEYS = {"api_key", "args", "env"}
_SECRET_KEYS = {
    "servers": _SECRET_SERVER_KEYS,
    "auth": _SECRET_AUTH_KEYS,
    "launch": _SECRET_LAUNCH_KEYS,
}
_AUTH_WORDS = ("keys", *AUTH_KEY_NAMES)
_SETTINGS = {setting.name: setting for setting in SETTINGS}
_HARMLESS = {name for name, setting in _SETTINGS.items() if not setting.secret} | (
    set(SERVER_KEY_NAMES) - _SECRET_SERVER_KEYS - {"api_key_env"} | {"servers", "config"}
)
_HARMLESS |= set(AUTH_KEY_NAMES) - set(AUTH_SOURCES)
_HARMLESS |= {"launch", *LAUNCH_KEY_NAMES} - _SECRET_LAUNCH_KEYS - {"api_key_env"}
# A key pasted in place of the name of its variable hardly ever looks like this.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")

_SECRET_WORD = re.compile(
    r"api[_-]?key|\bkeys?\b|key_(?:env|file)|header|authorization|bearer|secret|passw"
    r"|token(?!s_per_minute)",
    re.I,
)
# The word before `=`; before `:` too, for those who have YAML in mind.
_KEY = re.compile(r"""([\w.-]+)["']?\s*(?:=|:(?=[\s"']))""")
_QUOTED_TEXT = re.compile(r"""["'](?!https?://)""", re.I)


class Mask(NamedTuple):
    """A piece of a text, by offsets, and what is shown in its place."""

    start: int
    end: int
    replacement: str


def masks(data: Mapping[str, object], spots: Mapping[KeyPath, Spot]) -> list[Mask]:
    """The parts to hide of a document that was parsed to `data`, in their order."""
    found = []
    for path, value in _leaves(data, ()):
        replacement = _replacement(path, value)
        if replacement is not None:
            span = spots[path].value
            found.append(Mask(span.start, span.end, replacement))
    for path, spot in spots.items():
        if path[0] == "auth" and shown_key(path[-1]) == HIDDEN:
            found.append(Mask(spot.key.start, spot.key.end, HIDDEN))
    return sorted(found)


def mask_invalid(line: str) -> str:
    """The beginning of a line that no parser understood, up to where a secret may begin."""
    keys = list(_KEY.finditer(line))
    starts = [key.end() for key in keys if key[1] not in _HARMLESS]
    starts += [word.end() for word in _SECRET_WORD.finditer(line)]
    if not keys:
        starts += [quoted.end() for quoted in _QUOTED_TEXT.finditer(line)]
    cut = min(starts, default=len(line))
    shown = line[:cut] + (HIDDEN if cut < len(line) else "")
    return re.sub(r"://.*@", f"://{HIDDEN}@", shown)


def shown_variable(name: str) -> str:
    """The name of an environment variable, unless it may be the secret itself."""
    return name if _VARIABLE.fullmatch(name) else HIDDEN


def shown_key(key: str | int) -> str:
    """A key under `[auth]`, unless it may be the secret itself, as in { "secret" = "alice" }."""
    known = isinstance(key, int) or key == "auth" or did_you_mean(key, _AUTH_WORDS)
    return printable(str(key)) if known else HIDDEN


def _leaves(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _replacement(path: KeyPath, value: object) -> str | None:
    key = _deciding_key(path)
    if key is not None and _is_secret(key):
        return HIDDEN
    if not isinstance(value, str):
        # A key of digits is still a key.
        return HIDDEN if key is None and path[0] == "auth" else None
    return _shown_text(key, value)


def _shown_text(key: KeyPath | None, value: str) -> str | None:
    """What stands for a text; None: the text itself may be seen."""
    if key is None:
        return f'"{HIDDEN}"'
    masked = value
    if key == ("servers", "url") or "://" in value:
        masked = mask_url(value)
    elif key in (("servers", "api_key_env"), ("launch", "api_key_env"), ("auth", "key_env")):
        masked = shown_variable(value)
    return None if masked == value else f'"{printable(masked)}"'


def _is_secret(key: KeyPath) -> bool:
    table, name = key
    if table == "config":
        return _SETTINGS[str(name)].secret
    return name in _SECRET_KEYS[str(table)]


def _deciding_key(path: KeyPath) -> KeyPath | None:
    """The table and the known key in it that a value belongs to; None where there is none."""
    if path[0] == "policies":
        return ("config", "policy")  # the same names
    if path[0] == "config":
        return path[:2] if len(path) > 1 and path[1] in _SETTINGS else None
    if path[0] == "auth":
        number, name = path[2:4] if len(path) > 3 and path[1] == "keys" else ("", "")
        known = name in AUTH_KEY_NAMES and all(isinstance(n, int) for n in (number, *path[4:]))
        return ("auth", name) if known else None
    if path[0] == "launch":
        name = path[2] if len(path) > 2 and isinstance(path[1], int) else ""
        return ("launch", name) if name in LAUNCH_KEY_NAMES else None
    rest = path[2:] if path[:2] == ("servers", "servers") else path[1:]
    if path[0] != "servers" or not rest or isinstance(rest[0], str):
        return None
    if len(rest) == 1:
        return ("servers", "url")  # a server given as nothing but its URL
    return ("servers", rest[1]) if rest[1] in SERVER_KEY_NAMES else None
