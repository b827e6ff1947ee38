"""Reads the tables `[[launch]]`: the servers that the router starts itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mvllm_router.config.address import NAME, safe_name
from mvllm_router.config.document import Argument, Document, Where
from mvllm_router.config.launch_keys import LAUNCH_KEY_NAMES, LAUNCH_RULES
from mvllm_router.config.locate import KeyPath
from mvllm_router.config.masking import shown_variable
from mvllm_router.config.model import START_TIMEOUT, LaunchSpec
from mvllm_router.config.problems import Problem, did_you_mean, printable
from mvllm_router.config.rules import Mismatch, Value, kind, shown

_T = TypeVar("_T", bool, int, float, str)
_EXAMPLE = 'engine = "vllm", model = "Qwen/Qwen3-8B"'
# Longer names leave no room for the number of a server behind them.
_LONGEST_NAME = 48
_WITHOUT_KEY = ("mlx", "command")


def read_launches(
    document: Document,
    given: Mapping[str, object] | None,
    servers: Collection[str],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> tuple[LaunchSpec, ...]:
    """The launches of a file, and of the command line where one is `given` there.

    `servers` are the names of other servers. What is wrong is added to `problems`.
    """
    entries: list[tuple[object, Where, KeyPath]] = [
        (entry, document, ("launch", number))
        for number, entry in enumerate(_entries(document, problems))
    ]
    if given is not None:
        entries.append((given, Argument("router launch"), ()))
    found: list[LaunchSpec] = []
    taken = set(servers)
    for entry, where, path in entries:
        launch = _Entry(entry, where, path, problems).read(environ, [one.name for one in found])
        if launch is None:
            continue
        if clash := _clash(launch.name, taken, found):
            problems.append(where.problem((*path, "name"), clash, hint="give it another `name`"))
        found.append(launch)
    return tuple(found)


def _entries(document: Document, problems: list[Problem]) -> Sequence[object]:
    found = document.data.get("launch", [])
    if isinstance(found, list):
        return found
    message = f"`launch` must be an array of tables, but it is {kind(found)}"
    problems.append(document.problem(("launch",), message, hint="write [[launch]]"))
    return []


def _clash(name: str, servers: Collection[str], others: Sequence[LaunchSpec]) -> str | None:
    if any(other.name == name for other in others):
        return f"two launches have the name `{name}`"
    own = re.compile(re.escape(name) + r"-\d+")
    for server in sorted(servers):
        if own.fullmatch(server):
            return f"the launch `{name}` may have a server `{server}`, and there is one already"
    return None


class _Entry:
    """One entry while it is read."""

    def __init__(self, entry: object, where: Where, path: KeyPath, problems: list[Problem]) -> None:
        self.entry = entry
        self.table: Mapping[str, object] = entry if isinstance(entry, Mapping) else {}
        self.where = where
        self.path = path
        self.problems = problems

    def read(self, environ: Mapping[str, str], others: Sequence[str]) -> LaunchSpec | None:
        """The launch; None, and a problem, where it cannot even be said what it starts."""
        if not isinstance(self.entry, Mapping):
            self.fail([], f"a launch must be a table, but it is {kind(self.entry)}", _EXAMPLE)
            return None
        self.refuse_unknown_keys()
        engine = self.scalar("engine", str)
        if "engine" not in self.table:
            self.fail([], "the launch has no `engine`", f"such as {_EXAMPLE}")
        model = self.scalar("model", str) or ""
        args = self.words("args")
        self.check_subject(engine, model, args)
        launch = self._spec(engine or "", model, args, self.api_key(environ, engine), others)
        return launch if engine else None

    def _spec(
        self, engine: str, model: str, args: tuple[str, ...], key: str | None, others: Sequence[str]
    ) -> LaunchSpec:
        return LaunchSpec(
            name=self.name(model or engine, others),
            engine=engine,
            model=self.located(model),
            replicas=self.scalar("replicas", int),
            tp=self.scalar("tp", int) or 1,
            gpus=self.gpus(),
            slots=self.scalar("slots", int),
            context=self.scalar("context", int),
            engine_path=self.located(self.scalar("engine_path", str) or ""),
            args=args,
            env=self.env(),
            api_key=key,
            weight=self.scalar("weight", float) or 1.0,
            force=self.scalar("force", bool) or False,
            start_timeout=self.scalar("start_timeout", float) or START_TIMEOUT,
        )

    def fail(
        self, keys: Sequence[str], message: str, hint: str | None = None, *, at_value: bool = True
    ) -> None:
        context = f"in launch[{self.path[-1]}]" if self.path else None
        self.problems.append(
            self.where.problem(
                (*self.path, *keys), message, hint=hint, context=context, at_value=at_value
            )
        )

    def refuse_unknown_keys(self) -> None:
        for key in self.table:
            if key not in LAUNCH_KEY_NAMES:
                hint = did_you_mean(key, LAUNCH_KEY_NAMES)
                self.fail([key], f"unknown key `{printable(key)}`", hint, at_value=False)

    def checked(self, key: str, value: object) -> Value | None:
        try:
            return LAUNCH_RULES[key].check(value)
        except Mismatch as mismatch:
            self.fail([key], mismatch.message, mismatch.hint)
            return None

    def scalar(self, key: str, wanted: type[_T]) -> _T | None:
        """The value of a key that its rule allows; None where there is none."""
        value = self.checked(key, self.table[key]) if key in self.table else None
        return value if isinstance(value, wanted) else None

    def check_subject(self, engine: str | None, model: str, args: tuple[str, ...]) -> None:
        """There must be something to serve, and for a command something to run."""
        if engine == "command":
            if not args and not isinstance(self.table.get("args"), str):
                hint = 'such as args = ["my-server", "--port", "{port}"]'
                self.fail([], "the launch of a command has no command in `args`", hint)
        elif engine and not model and "model" not in self.table:
            self.fail([], "the launch has no `model`", f"such as {_EXAMPLE}")

    def name(self, subject: str, others: Sequence[str]) -> str:
        given = self.scalar("name", str)
        if given is None:
            # The second launch of a model must not be refused for want of a name.
            base = default_launch_name(subject)
            names = (base, *(f"{base}-{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"))
            return next((name for name in names if name not in others), base)
        if not NAME.fullmatch(given):
            allowed = "letters, digits and . _ : - only"
            self.fail(["name"], f"`name` may hold {allowed}, not {shown(given)}")
        return given

    def located(self, text: str) -> str:
        """A path of the file's folder in full; what is no path is left as it is."""
        if not looks_like_path(text):
            return text
        return str((self.where.folder / Path(text).expanduser()).absolute())

    def gpus(self) -> tuple[str, ...] | None:
        given = self.table.get("gpus")
        if given is None:
            return None
        if isinstance(given, list):
            given = [str(one) if type(one) is int else one for one in given]
        found = self.checked("gpus", given)
        return found if isinstance(found, tuple) else None

    def words(self, key: str) -> tuple[str, ...]:
        """An array of texts, whose values are not shown: a key may be among them."""
        given = self.table.get(key, [])
        if isinstance(given, list) and all(isinstance(one, str) for one in given):
            return tuple(given)
        hint = f'write each word by itself: {key} = ["--seed", "1"]'
        self.fail([key], f"`{key}` must be an array of strings", hint)
        return ()

    def env(self) -> dict[str, str]:
        given = self.table.get("env", {})
        if not isinstance(given, Mapping):
            hint = 'write env = { HF_HUB_OFFLINE = "1" }'
            self.fail(["env"], f"`env` must be a table, but it is {kind(given)}", hint)
            return {}
        for name, value in given.items():
            if not isinstance(value, str) or "\0" in value:
                self.fail(["env", name], f"the variable `{printable(name)}` must be a string")
        return {name: str(value) for name, value in given.items()}

    def api_key(self, environ: Mapping[str, str], engine: str | None) -> str | None:
        given = [key for key in ("api_key", "api_key_env") if key in self.table]
        if given and engine in _WITHOUT_KEY:
            self.fail([given[0]], f"the engine {engine} knows no key")
            return None
        if len(given) > 1:
            self.fail(given[1:], "both `api_key` and `api_key_env` are given", "keep one of them")
            return None
        variable = self.scalar("api_key_env", str)
        if variable is None:
            return self.scalar("api_key", str)
        key = environ.get(variable, "").strip()
        if not key:
            message = f"the environment variable `{shown_variable(variable)}` is not set"
            self.fail(["api_key_env"], message, "`api_key_env` names the variable with the key")
        return key or None


def looks_like_path(text: str) -> bool:
    """Whether a model or a program is meant as a file or a folder of this machine.

    `org/model` is a name of the model hub, also where there happens to be such a folder.
    """
    return text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf")


def default_launch_name(subject: str) -> str:
    """The name of a launch that was given none: after its model, in small letters."""
    last = subject.rstrip("/").rpartition("/")[2].removesuffix(".gguf").lower()
    name = safe_name(last).replace(":", "-").strip("-.")[:_LONGEST_NAME]
    return name if NAME.fullmatch(name) else "server"
