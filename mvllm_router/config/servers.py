"""Reads the entry of one server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from mvllm_router.config.address import NAME, default_name, normalise_url, safe_name
from mvllm_router.config.document import Where
from mvllm_router.config.locate import KeyPath
from mvllm_router.config.masking import shown_variable
from mvllm_router.config.model import ServerSpec
from mvllm_router.config.pem import Pem, check_pem, stamp
from mvllm_router.config.problems import Problem, did_you_mean, mask_url, printable
from mvllm_router.config.rules import Mismatch, kind, shown
from mvllm_router.config.server_keys import ENGINE_ALIASES, SERVER_KEY_NAMES, SERVER_RULES
from mvllm_router.config.settings import SETTINGS

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# The router frames messages itself; another value here would break or smuggle requests.
_FRAMING_HEADERS = {
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

_T = TypeVar("_T", bool, int, float, str)


class _Tls(NamedTuple):
    """How a server is spoken to over TLS; see ServerSpec."""

    verify: bool
    ca: str
    cert: str
    key: str


def read_server(
    entry: object,
    *,
    where: Where,
    path: KeyPath,
    environ: Mapping[str, str],
    problems: list[Problem],
) -> ServerSpec | None:
    """The server that `entry`, a table or a plain URL, describes.

    What is wrong with it is added to `problems`. None when there is no usable URL; else a
    specification in which defaults stand in for what is wrong.
    """
    table = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(table, Mapping):
        message = f"a server must be a table or a URL, but it is {kind(entry)}"
        problems.append(where.problem(path, message, hint='write { url = "http://gpu1:8000" }'))
        return None
    return _Entry(table, where, path, environ, problems).read()


class _Entry:
    """One entry while it is read."""

    def __init__(
        self,
        table: Mapping[str, object],
        where: Where,
        path: KeyPath,
        environ: Mapping[str, str],
        problems: list[Problem],
    ) -> None:
        self.table = table
        self.where = where
        self.path = path
        self.environ = environ
        self.problems = problems

    def read(self) -> ServerSpec | None:
        self.refuse_unknown_keys()
        url = self.url()
        models, aliases = self.models()
        api_key = self.api_key()
        headers = self.headers()
        name = self.name()
        engine = self.engine()
        limit = self.scalar("max_concurrent_requests", int)
        weight = self.scalar("weight", float)
        tls = self.tls(url)
        tags = self.texts("tags")
        if url is None:
            return None
        return ServerSpec(
            url=url,
            name=name or default_name(url),
            engine=engine,
            max_concurrent_requests=limit,
            weight=1.0 if weight is None else weight,
            models=models,
            aliases=aliases,
            api_key=api_key,
            headers=headers,
            tls_verify=tls.verify,
            tls_ca=tls.ca,
            tls_cert=tls.cert,
            tls_key=tls.key,
            tls_files=stamp((tls.ca, tls.cert, tls.key)),
            tags=tags,
        )

    def fail(
        self, keys: Sequence[str], message: str, hint: str | None = None, *, at_value: bool = True
    ) -> None:
        problem = self.where.problem(
            (*self.path, *keys), message, hint=hint, context=self.context(), at_value=at_value
        )
        self.problems.append(problem)

    def context(self) -> str | None:
        if not self.path:
            return None
        url = self.table.get("url")
        shown_url = f' (url = "{printable(mask_url(url))}")' if isinstance(url, str) else ""
        return f"in servers[{self.path[-1]}]{shown_url}"

    def refuse_unknown_keys(self) -> None:
        for key in self.table:
            if key not in SERVER_KEY_NAMES:
                hint = did_you_mean(key, SERVER_KEY_NAMES)
                if any(key == setting.name for setting in SETTINGS):
                    hint = "it is a setting of the router, and belongs under [config]"
                self.fail([key], f"unknown key `{printable(key)}`", hint, at_value=False)

    def scalar(self, key: str, wanted: type[_T]) -> _T | None:
        """The value of a key that its rule allows; None where there is none."""
        if key not in self.table:
            return None
        try:
            value = SERVER_RULES[key].check(self.table[key])
        except Mismatch as mismatch:
            self.fail([key], mismatch.message, mismatch.hint)
            return None
        assert isinstance(value, wanted)
        return value

    def url(self) -> str | None:
        if "url" not in self.table:
            self.fail([], "the server has no `url`", 'add url = "http://host:port"')
            return None
        text = self.scalar("url", str)
        if text is None:
            return None
        try:
            return normalise_url(text)
        except Mismatch as mismatch:
            self.fail(["url"], mismatch.message, mismatch.hint)
            return None

    def name(self) -> str | None:
        name = self.scalar("name", str)
        if name is None or NAME.fullmatch(name):
            return name
        suggestion = safe_name(mask_url(name)).strip("-")
        hint = f'for instance "{suggestion}"' if NAME.fullmatch(suggestion) else None
        self.fail(
            ["name"], f"`name` may hold letters, digits and . _ : - only, not {shown(name)}", hint
        )
        return None

    def engine(self) -> str:
        given = self.table.get("engine")
        if isinstance(given, str) and given.lower() in ENGINE_ALIASES:
            return ENGINE_ALIASES[given.lower()]
        return self.scalar("engine", str) or "auto"

    def models(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The models that override what the server lists, and the aliases."""
        given = self.table.get("models")
        if isinstance(given, Mapping):
            return (), self.aliases(given)
        return self.texts("models", 'an array of names, or a table { "alias" = "model" }'), {}

    def aliases(self, table: Mapping[str, object]) -> dict[str, str]:
        found = {}
        for public, own in table.items():
            if isinstance(own, str) and own and public:
                found[public] = own
            else:
                message = (
                    f"the alias `{printable(public)}` must stand for a name, but it is {shown(own)}"
                )
                self.fail(["models", public], message)
        return found

    def texts(self, key: str, expected: str = "an array of strings") -> tuple[str, ...]:
        """The texts of an array, each once."""
        given = self.table.get(key, [])
        if not isinstance(given, list):
            hint = f"write {key} = [{shown(given)}]" if isinstance(given, str) else None
            self.fail([key], f"`{key}` must be {expected}, but it is {shown(given)}", hint)
            return ()
        wrong = [item for item in given if not isinstance(item, str) or not item]
        if wrong:
            self.fail([key], f"`{key}` must be {expected}, but {shown(wrong[0])} is in it")
            return ()
        return tuple(dict.fromkeys(given))

    def api_key(self) -> str | None:
        if "api_key" in self.table and "api_key_env" in self.table:
            self.fail(
                ["api_key_env"], "both `api_key` and `api_key_env` are given", "keep one of them"
            )
            return None
        variable = self.scalar("api_key_env", str)
        if variable is None:
            return self.scalar("api_key", str)
        key = self.environ.get(variable, "").strip()
        if not key:
            self.report_unset(variable)
            return None
        try:
            return str(SERVER_RULES["api_key"].check(key))
        except Mismatch as mismatch:
            self.fail(["api_key_env"], mismatch.message, mismatch.hint)
            return None

    def report_unset(self, variable: str) -> None:
        variable = shown_variable(variable)
        self.fail(
            ["api_key_env"],
            f"the environment variable `{variable}` is not set",
            "`api_key_env` names the variable that holds the key",
        )

    def tls(self, url: str | None) -> _Tls:
        own_key = "tls_key" in self.table
        tls = _Tls(
            verify=self.scalar("tls_verify", bool) is not False,
            ca=self.file("tls_ca", Pem.CERTIFICATE),
            cert=self.file("tls_cert", Pem.CERTIFICATE, *(() if own_key else (Pem.KEY,))),
            key=self.file("tls_key", Pem.KEY),
        )
        for key in ("tls_ca", "tls_cert", "tls_key"):
            if self.table.get(key) and url is not None and not url.startswith("https://"):
                self.fail([key], f"`{key}` is for servers whose URL begins with https://")
        if tls.ca and not tls.verify:
            self.fail(["tls_ca"], "`tls_ca` has no effect where `tls_verify` is false")
        if tls.key and not tls.cert:
            self.fail(["tls_key"], "`tls_key` is given without `tls_cert`")
        return tls

    def file(self, key: str, *wanted: Pem) -> str:
        """The path of the file that a key names, "" for none."""
        given = self.scalar(key, str)
        if not given:
            return ""
        path = str(self.where.folder / given)
        try:
            check_pem(key, path, *wanted)
        except Mismatch as mismatch:
            self.fail([key], mismatch.message, mismatch.hint)
        return path

    def headers(self) -> tuple[tuple[str, str], ...]:
        given = self.table.get("headers", {})
        if not isinstance(given, Mapping):
            hint = 'write headers = { X-Team = "research" }'
            self.fail(["headers"], f"`headers` must be a table, but it is {kind(given)}", hint)
            return ()
        seen: set[str] = set()
        for name, value in given.items():
            if fault := self.header_fault(name, value, seen):
                self.fail(["headers", name], fault)
            seen.add(name.lower())
        return tuple((name, str(value)) for name, value in given.items())

    def header_fault(self, name: str, value: object, seen: set[str]) -> str | None:
        """What is wrong with a header, in words that hide its value."""
        shown_name = printable(name)
        if not _HEADER_NAME.fullmatch(name):
            return f"`{shown_name}` cannot be the name of a header"
        if name.lower() in _FRAMING_HEADERS:
            return f"the router sets the header `{shown_name}` itself"
        if name.lower() in seen:
            return f"the header `{shown_name}` is given twice"
        if name.lower() == "authorization" and {"api_key", "api_key_env"} & self.table.keys():
            return f"the server has an API key and a header `{shown_name}`: only one can be sent"
        if not isinstance(value, str):
            return f"the header `{shown_name}` must be a string, but it is {kind(value)}"
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            return f"the header `{shown_name}` has a line break or another control character in it"
        return None
