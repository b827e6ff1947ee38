"""Reads the table `[auth]`: the keys that clients may present."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mvllm_router.config.address import NAME, safe_name
from mvllm_router.config.auth_keys import AUTH_KEY_NAMES, AUTH_RULES, AUTH_SOURCES
from mvllm_router.config.document import Argument, Document, Where
from mvllm_router.config.locate import KeyPath
from mvllm_router.config.masking import shown_key, shown_variable
from mvllm_router.config.model import DEFAULT_KEY, KeySpec, key_digest
from mvllm_router.config.problems import Problem, did_you_mean
from mvllm_router.config.rules import Mismatch, Value, kind, shown
from mvllm_router.config.settings import Settings

_PATH: KeyPath = ("auth", "keys")
_EXAMPLE = '{ name = "alice", key_env = "ALICE_KEY" }'
# In bytes. What is longer is some other file.
_LONGEST = 8192


class PlacedKey(NamedTuple):
    """A key with the place of its entry, and the name of what gave it there."""

    spec: KeySpec
    path: KeyPath
    source: str


def read_keys(
    document: Document, environ: Mapping[str, str], problems: list[Problem]
) -> list[PlacedKey]:
    """The keys of a file. What is wrong with them is added to `problems`."""
    placed = []
    for index, entry in enumerate(_entries(document, problems)):
        reader = _Entry(entry, document, (*_PATH, index), problems)
        key = reader.read(environ)
        if key is not None:
            placed.append(key)
    return placed


def repeated_keys(document: Document, placed: list[PlacedKey], settings: Settings) -> list[Problem]:
    """Keys with the name or the value of another one, that of a setting included."""
    names: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    if settings.api_key:
        names[DEFAULT_KEY] = f"the key of the setting `api_key` is called `{DEFAULT_KEY}`"
        digests[key_digest(settings.api_key)] = "the other one is the setting `api_key`"
    if settings.admin_key:
        digests[key_digest(settings.admin_key)] = "the other one is the setting `admin_key`"
    problems = []
    for spec, path, source in placed:
        if hint := names.get(spec.name):
            message = f"two keys have the name `{spec.name}`"
            problems.append(document.problem((*path, "name"), message, hint=hint))
        elif hint := digests.get(spec.digest):
            message = f"the key `{spec.name}` is the same as another one"
            problems.append(document.problem((*path, source), message, hint=hint))
        hint = f"the other one is at {document.describe(path)}"
        names.setdefault(spec.name, hint)
        digests.setdefault(spec.digest, hint)
    return problems


def settings_problems(
    document: Document, settings: Settings, origins: Mapping[str, str]
) -> list[Problem]:
    """What is wrong with the two keys that are settings, and with a table that has none."""
    if settings.admin_key and settings.admin_key == settings.api_key:
        from_file = origins["admin_key"] == "file"
        where: Where = document if from_file else Argument("ROUTER_ADMIN_KEY")
        message = "`admin_key` is the same as `api_key`"
        hint = "every client could change the router: choose another one"
        return [where.problem(("config", "admin_key"), message, hint=hint)]
    if document.data.get("auth") in ({}, {"keys": []}) and not settings.api_key:
        message = "there is no key in [auth], so that everybody may come in"
        return [document.problem(("auth",), message, hint="add one", label="warning")]
    return []


def _entries(document: Document, problems: list[Problem]) -> list[object]:
    """The entries under `[auth] keys = [...]`, or under `[[auth.keys]]`."""
    table = document.data.get("auth", {})
    if not isinstance(table, dict):
        message = f"`auth` must be a table, but it is {kind(table)}"
        problems.append(document.problem(("auth",), message, hint="write [auth]"))
        return []
    problems += [_unknown_beside_keys(document, key) for key in table if key != "keys"]
    found = table.get("keys", [])
    if isinstance(found, list):
        return found
    message = f"`keys` must be an array of tables, but it is {kind(found)}"
    problems.append(document.problem(_PATH, message, hint=f"write keys = [ {_EXAMPLE} ]"))
    return []


def _unknown_beside_keys(document: Document, key: str) -> Problem:
    hint = did_you_mean(key, ("keys",))
    if key in AUTH_KEY_NAMES:
        hint = "the keys of an entry stand in keys = [ { ... } ], or under [[auth.keys]]"
    elif key in Settings.__dataclass_fields__:
        hint = "it belongs under [config]"
    message = f"unknown key `{shown_key(key)}`"
    return document.problem(("auth", key), message, hint=hint, context="in [auth]", at_value=False)


class _Entry:
    """One entry while it is read."""

    def __init__(
        self, entry: object, document: Document, path: KeyPath, problems: list[Problem]
    ) -> None:
        self.entry = entry
        self.table: Mapping[str, object] = entry if isinstance(entry, Mapping) else {}
        self.document = document
        self.path = path
        self.problems = problems

    def read(self, environ: Mapping[str, str]) -> PlacedKey | None:
        if not isinstance(self.entry, Mapping):
            self.fail(
                (), f"a key must be a table, but it is {kind(self.entry)}", f"write {_EXAMPLE}"
            )
            return None
        self.refuse_unknown_keys()
        name = self.name()
        source = self.source()
        value = self.value(source, environ) if source else None
        limits = (
            self.number("requests_per_minute"),
            self.number("tokens_per_minute"),
            self.number("max_concurrent_requests"),
        )
        models = self.models()
        priority = self.number("priority") or 0
        if name is None or source is None or value is None:
            return None
        spec = KeySpec(name, key_digest(value), *limits, models, priority)
        return PlacedKey(spec, self.path, source)

    def fail(
        self, keys: KeyPath, message: str, hint: str | None = None, *, at_value: bool = True
    ) -> None:
        problem = self.document.problem(
            (*self.path, *keys), message, hint=hint, context=self.context(), at_value=at_value
        )
        self.problems.append(problem)

    def context(self) -> str:
        name = self.table.get("name")
        named = f" (name = {shown(name)})" if isinstance(name, str) else ""
        return f"in auth.keys[{self.path[-1]}]{named}"

    def refuse_unknown_keys(self) -> None:
        for key in self.table:
            if key not in AUTH_KEY_NAMES:
                hint = did_you_mean(key, AUTH_KEY_NAMES)
                self.fail((key,), f"unknown key `{shown_key(key)}`", hint, at_value=False)

    def checked(self, key: str, value: object) -> Value | None:
        """The value that the rule of `key` allows; None, and a problem, where it does not."""
        try:
            return AUTH_RULES[key].check(value)
        except Mismatch as mismatch:
            at = (key,) if mismatch.item is None else (key, mismatch.item)
            self.fail(at, mismatch.message, mismatch.hint)
            return None

    def text(self, key: str) -> str | None:
        found = self.checked(key, self.table[key]) if key in self.table else None
        return found if isinstance(found, str) else None

    def number(self, key: str) -> int | None:
        found = self.checked(key, self.table[key]) if key in self.table else None
        return found if isinstance(found, int) else None

    def name(self) -> str | None:
        if "name" not in self.table:
            self.fail((), "the key has no `name`", "metrics and errors call it by its name")
            return None
        name = self.text("name")
        if name is None or NAME.fullmatch(name):
            return name
        suggestion = safe_name(name).strip("-")
        hint = f'for instance "{suggestion}"' if NAME.fullmatch(suggestion) else None
        message = f"`name` may hold up to 64 letters, digits and . _ : -, not {shown(name)}"
        self.fail(("name",), message, hint)
        return None

    def models(self) -> tuple[str, ...]:
        found = self.checked("models", self.table["models"]) if "models" in self.table else None
        if found == ():
            self.fail(("models",), "`models` allows none", "leave it out to allow all")
        return found if isinstance(found, tuple) else ()

    # --- the key itself

    def source(self) -> str | None:
        given = [source for source in AUTH_SOURCES if source in self.table]
        if not given:
            hint = "give one of `key`, `key_env` and `key_file`"
            self.fail((), "the entry has no key", hint)
        elif len(given) > 1:
            message = f"both `{given[0]}` and `{given[1]}` are given"
            self.fail((given[1],), message, "keep one of them")
        return given[0] if len(given) == 1 else None

    def value(self, source: str, environ: Mapping[str, str]) -> str | None:
        given = self.text(source)
        if given is None:
            return None
        try:
            if source == "key_env":
                given = _from_variable(given, environ)
            elif source == "key_file":
                given = _from_file(self.document.folder / given)
            return _usable(given)
        except Mismatch as mismatch:
            self.fail((source,), mismatch.message, mismatch.hint)
            return None


def _usable(key: str) -> str:
    """A key that a header can carry. Raises Mismatch, which does not show it."""
    if key != key.strip():
        raise Mismatch("the key begins or ends with white space, which a header cannot carry")
    return str(AUTH_RULES["key"].check(key))


def _from_variable(variable: str, environ: Mapping[str, str]) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        raise Mismatch(
            f"the environment variable `{shown_variable(variable)}` is not set",
            "`key_env` names the variable that holds the key",
        )
    return key


def _from_file(path: Path) -> str:
    """The key that a file holds. Raises Mismatch, which hides the path: it may be a key."""
    hint = "`key_file` names a file that holds the key and nothing else"
    try:
        if path.exists() and not path.is_file():
            raise Mismatch("what `key_file` names is no file", hint)
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        key = content.decode("utf-8-sig").strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Mismatch(f"the file of `key_file` cannot be read: {reason}", hint) from error
    except UnicodeDecodeError as error:
        raise Mismatch("the file of `key_file` is not UTF-8", hint) from error
    if not key or len(content) > _LONGEST:
        raise Mismatch(f"the file of `key_file` is {'too long' if key else 'empty'}", hint)
    return key
