"""Puts a configuration together from a file, the environment and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mvllm_router.config.document import Argument, Document, Where, read_text
from mvllm_router.config.keys import read_keys, repeated_keys, settings_problems
from mvllm_router.config.launches import read_launches
from mvllm_router.config.locate import KeyPath
from mvllm_router.config.model import Config, ServerSpec
from mvllm_router.config.pem import check_pem
from mvllm_router.config.policies import read_policies
from mvllm_router.config.problems import ConfigError, Problem, did_you_mean, in_order, printable
from mvllm_router.config.rules import Mismatch, Value, kind
from mvllm_router.config.server_keys import SERVER_KEY_NAMES, SERVER_RULES
from mvllm_router.config.servers import read_server
from mvllm_router.config.settings import SETTINGS, Setting, Settings

_TABLES = ("servers", "launch", "auth", "policies", "config")
_SETTING_NAMES = tuple(setting.name for setting in SETTINGS)


@dataclass(frozen=True, slots=True)
class Override:
    """A setting given outside of the file.

    `value` may be a text, which is read as the setting's type. `place` is what a problem with it
    points at: "--port", "ROUTER_PORT".
    """

    value: object
    origin: Literal["flag", "environment"]
    place: str


class _Placed(NamedTuple):
    """A server with the place that it comes from."""

    server: ServerSpec
    where: Where
    path: KeyPath

    def describe(self) -> str:
        return self.where.describe(self.path)


def load(
    path: Path | None,
    *,
    urls: Sequence[str] = (),
    max_load: Sequence[int] = (),
    launch: Mapping[str, object] | None = None,
    overrides: Mapping[str, Override] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration from the file `path` (None: no file) and all else that has a say.

    `urls` are servers beside those of the file. `max_load` is the number of requests each of them
    can work on: one for all, or one for each. `launch` is an entry of `[[launch]]` beside those of
    the file. `overrides` go by names of settings; they come before
    the variables ROUTER_* of `environ` (None: of this process; an empty one counts as unset), these
    before the file, and that before the defaults. Raises ConfigError with all that is wrong.
    """
    text = "" if path is None else read_text(path)
    return parse(
        text,
        path,
        urls=urls,
        max_load=max_load,
        launch=launch,
        overrides=overrides,
        environ=environ,
    )


def parse(
    text: str,
    path: Path | None = None,
    *,
    urls: Sequence[str] = (),
    max_load: Sequence[int] = (),
    launch: Mapping[str, object] | None = None,
    overrides: Mapping[str, Override] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """As `load`, from the text of a file that was read already."""
    environ = os.environ if environ is None else environ
    document = Document(text, str(path or "servers.toml"))
    problems = _unknown_tables(document)
    placed = _file_servers(document, environ, problems)
    placed += _argument_servers(urls, max_load, problems)
    problems += _repeated(placed)
    names = [one.server.name for one in placed]
    launches = read_launches(document, launch, names, environ, problems)
    settings, origins = _settings(document, overrides or {}, environ, problems)
    keys = read_keys(document, environ, problems)
    policies = read_policies(document, problems)
    problems += repeated_keys(document, keys, settings)
    problems += settings_problems(document, settings, origins)
    if any(problem.label == "error" for problem in problems):
        raise ConfigError(problems)
    servers = tuple(one.server for one in placed)
    return Config(
        servers,
        settings,
        path,
        origins,
        warnings=tuple(in_order(problems)),
        keys=tuple(one.spec for one in keys),
        places=_places(document, origins, overrides or {}),
        server_places={
            one.server.name: document.address(one.path) for one in placed if one.where is document
        },
        is_blank=path is not None and not text.strip(),
        launches=launches,
        policies=policies,
    )


def server_from(
    entry: object, *, place: str = "server", environ: Mapping[str, str] | None = None
) -> ServerSpec:
    """One server from a URL or from a mapping with the keys of the file, as an API gets it.

    `place` is what problems point at. Raises ConfigError with all that is wrong.
    """
    problems: list[Problem] = []
    environ = os.environ if environ is None else environ
    server = read_server(entry, where=Argument(place), path=(), environ=environ, problems=problems)
    if problems or server is None:
        raise ConfigError(problems)
    return server


def _unknown_tables(document: Document) -> list[Problem]:
    return [
        document.problem(
            (key,), f"unknown key `{printable(key)}`", hint=_table_hint(key), at_value=False
        )
        for key in document.data
        if key not in _TABLES
    ]


def _table_hint(key: str) -> str | None:
    if key in _SETTING_NAMES:
        return "it belongs under [config]"
    return did_you_mean(key, _TABLES)


def _file_servers(
    document: Document, environ: Mapping[str, str], problems: list[Problem]
) -> list[_Placed]:
    placed = []
    for path, entry in _server_entries(document, problems):
        server = read_server(entry, where=document, path=path, environ=environ, problems=problems)
        if server is not None:
            placed.append(_Placed(server, document, path))
    return placed


def _server_entries(document: Document, problems: list[Problem]) -> list[tuple[KeyPath, object]]:
    """The entries under `[servers] servers = [...]`, or under `[[servers]]`."""
    path: KeyPath = ("servers",)
    found = document.data.get("servers", [])
    if isinstance(found, dict):
        problems += _unknown_beside_servers(document, found)
        path = ("servers", "servers")
        found = found.get("servers", [])
    if not isinstance(found, list):
        message = f"`servers` must be an array of servers, but it is {kind(found)}"
        problems.append(document.problem(path, message, hint="write servers = [ ... ]"))
        return []
    return [((*path, index), entry) for index, entry in enumerate(found)]


def _unknown_beside_servers(document: Document, table: Mapping[str, object]) -> list[Problem]:
    def hint(key: str) -> str | None:
        if key in SERVER_KEY_NAMES:
            return "a server's keys stand in servers = [ { ... } ], or under [[servers]]"
        if key in _SETTING_NAMES:
            return "it belongs under [config]"
        return did_you_mean(key, ("servers",))

    return [
        document.problem(
            ("servers", key),
            f"unknown key `{printable(key)}`",
            hint=hint(key),
            context="in [servers]",
            at_value=False,
        )
        for key in table
        if key != "servers"
    ]


def _argument_servers(
    urls: Sequence[str], max_load: Sequence[int], problems: list[Problem]
) -> list[_Placed]:
    limits = _limits(len(urls), max_load, problems)
    placed = []
    for number, (url, limit) in enumerate(zip(urls, limits, strict=True), 1):
        where = Argument(f"URL argument {number}" if len(urls) > 1 else "URL argument")
        entry: dict[str, object] = {"url": url}
        if limit is not None:
            entry["max_concurrent_requests"] = limit
        server = read_server(entry, where=where, path=(), environ={}, problems=problems)
        if server is not None:
            placed.append(_Placed(server, where, ()))
    return placed


def _limits(urls: int, max_load: Sequence[int], problems: list[Problem]) -> Sequence[int | None]:
    """The limit of each URL on the command line."""
    fault = _max_load_fault(urls, max_load)
    if fault:
        problems.append(Problem(fault, "--max-load"))
    if fault or not max_load:
        return [None] * urls
    return max_load if len(max_load) == urls else [max_load[0]] * urls


def _max_load_fault(urls: int, max_load: Sequence[int]) -> str | None:
    for limit in max_load:
        try:
            SERVER_RULES["max_concurrent_requests"].check(limit)
        except Mismatch as mismatch:
            return mismatch.message.replace("max_concurrent_requests", "--max-load")
    if max_load and not urls:
        return "`--max-load` is for servers named by URL, and there is none"
    if len(max_load) > 1 and len(max_load) != urls:
        return f"there are {len(max_load)} values for {urls} URLs: give one for all or one for each"
    return None


def _repeated(placed: Iterable[_Placed]) -> list[Problem]:
    """Servers with the URL or the name of one before them."""
    by_url: dict[str, _Placed] = {}
    by_name: dict[str, _Placed] = {}
    problems = []
    for one in placed:
        url, name = one.server.url, one.server.name
        if other := by_url.get(url):
            problems.append(_repetition(one, other, "url", f"two servers have the URL `{url}`"))
        elif other := by_name.get(name):
            problems.append(_repetition(one, other, "name", f"two servers have the name `{name}`"))
        by_url.setdefault(url, one)
        by_name.setdefault(name, one)
    return problems


def _repetition(one: _Placed, other: _Placed, key: str, message: str) -> Problem:
    hint = f"the other one is at {other.describe()}"
    return one.where.problem((*one.path, key), message, hint=hint)


def _settings(
    document: Document,
    overrides: Mapping[str, Override],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> tuple[Settings, dict[str, str]]:
    """All settings, and where each comes from."""
    unknown = overrides.keys() - set(_SETTING_NAMES)
    if unknown:
        raise KeyError(f"no such settings: {sorted(unknown)}")
    values = _file_settings(document, problems)
    origins = {name: "file" if name in values else "default" for name in _SETTING_NAMES}
    for setting in SETTINGS:
        override = overrides.get(setting.name) or _from_environment(setting, environ)
        if override is not None:
            origins[setting.name] = override.origin
            values.update(_overridden(setting, override, problems))
    problems += _unpaired(document, values, origins, overrides)
    return Settings(**values), origins  # type: ignore[arg-type]  # each was checked by its rule


def _places(
    document: Document, origins: Mapping[str, str], overrides: Mapping[str, Override]
) -> dict[str, str]:
    """Where each setting stands that does not have its default."""
    return {
        name: document.address(("config", name))
        if origin == "file"
        else overrides[name].place
        if name in overrides
        else f"ROUTER_{name.upper()}"
        for name, origin in origins.items()
        if origin != "default"
    }


def _unpaired(
    document: Document,
    values: Mapping[str, Value],
    origins: Mapping[str, str],
    overrides: Mapping[str, Override],
) -> list[Problem]:
    """A certificate without its key, or a key without its certificate."""
    given = [name for name in ("tls_cert", "tls_key") if values.get(name)]
    if len(given) != 1:
        return []
    (one,) = given
    where: Where = document
    if origins[one] != "file":
        where = Argument(overrides[one].place if one in overrides else f"ROUTER_{one.upper()}")
    other = "tls_key" if one == "tls_cert" else "tls_cert"
    message = f"`{one}` is given without `{other}`: TLS needs both"
    return [where.problem(("config", one), message)]


def _file_settings(document: Document, problems: list[Problem]) -> dict[str, Value]:
    table = document.data.get("config", {})
    if not isinstance(table, dict):
        message = f"`config` must be a table, but it is {kind(table)}"
        problems.append(document.problem(("config",), message, hint="write [config]"))
        return {}
    for key in table:
        if key not in _SETTING_NAMES:
            problems.append(_unknown_setting(document, key))
    return {
        setting.name: value
        for setting in SETTINGS
        if setting.name in table
        and (value := _checked(setting, table[setting.name], document, problems)) is not None
    }


def _unknown_setting(document: Document, key: str) -> Problem:
    hint = did_you_mean(key, _SETTING_NAMES)
    if key in SERVER_KEY_NAMES:
        hint = "it is a key of a server, and belongs into its entry"
    message = f"unknown key `{printable(key)}`"
    return document.problem(
        ("config", key), message, hint=hint, context="in [config]", at_value=False
    )


def _checked(
    setting: Setting, value: object, where: Where, problems: list[Problem], *, text: bool = False
) -> Value | None:
    """The value in the setting's type; None, and a problem, where the setting's rule forbids it."""
    path: KeyPath = ("config", setting.name)
    try:
        result = setting.read(str(value)) if text else setting.check(value)
    except Mismatch as mismatch:
        path = path if mismatch.item is None else (*path, mismatch.item)
        problems.append(where.problem(path, mismatch.message, hint=mismatch.hint))
        return None
    if setting.pem and result:
        result = str(where.folder / str(result))
        problems += _file_problems(setting, result, where)
    if setting.no_effect:
        message = f"`{setting.name}` has no effect any more"
        problems.append(
            where.problem(path, message, hint="leave it out", label="warning", at_value=False)
        )
    return result


def _file_problems(setting: Setting, path: str, where: Where) -> list[Problem]:
    assert setting.pem is not None
    try:
        check_pem(setting.name, path, setting.pem)
    except Mismatch as mismatch:
        return [where.problem(("config", setting.name), mismatch.message, hint=mismatch.hint)]
    return []


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> Override | None:
    # `KEY: ${KEY}` in a compose file sets an empty variable, which is not meant as a value.
    text = environ.get(setting.variable, "").strip()
    return Override(text, "environment", setting.variable) if text else None


def _overridden(setting: Setting, override: Override, problems: list[Problem]) -> dict[str, Value]:
    where = Argument(override.place)
    text = isinstance(override.value, str)
    found: list[Problem] = []
    value = _checked(setting, override.value, where, found, text=text)
    if value is None and str(override.value).startswith("tcp://"):
        hint = "Kubernetes sets it for a service named router: set enableServiceLinks to false"
        found = [where.problem((), problem.message, hint=hint) for problem in found]
    problems += found
    return {} if value is None else {setting.name: value}
