"""`python -m mvllm_router.sim`: simulated engines in a process of their own.

    python -m mvllm_router.sim --dialect vllm --model tiny --slots 4 --tps 50
    python -m mvllm_router.sim --engine vllm:tiny:slots=8:tps=60 --engine llama.cpp:tiny

One JSON line on stdout says where they listen: {"url": ..., "urls": [...]}. With --parent-pipe
they end with stdin, and take commands there, see mvllm_router/sim/commands.py.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, get_args

from mvllm_router import __version__
from mvllm_router.sim.commands import Commands
from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.process import ParentPipe, announce, run, stop_on_signals
from mvllm_router.sim.profile import DialectName, Profile

# Words of --engine and of the options: the field of the profile, and how its text is read.
_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "slots": ("slots", int),
    "tps": ("tokens_per_second", float),
    "prefill": ("prefill_seconds", float),
    "prefill-tps": ("prefill_tokens_per_second", float),
    "kv": ("kv_tokens", int),
    "queue": ("max_queue", int),
    "engines": ("engines", int),
    "loading": ("loading_seconds", float),
    "key": ("api_key", str),
    "slowdown": ("slowdown", float),
    "context": ("context", int),
    "embeddings": ("embeddings", lambda text: text == "yes"),
}


def parse_engine(text: str) -> Profile:
    """A profile from `dialect:model[,model...][:word=value...]`.

    Raises ValueError, which says what is wrong.
    """
    dialect, _, rest = text.partition(":")
    models, *pairs = rest.split(":")
    if dialect not in get_args(DialectName):
        raise ValueError(f"{text}: dialect {dialect!r} is none of {', '.join(_dialects())}")
    settings = dict(_setting(text, pair) for pair in pairs)
    names = tuple(name for name in models.split(",") if name)
    return Profile(dialect=dialect, models=names, **settings)  # type: ignore[arg-type]


def _setting(text: str, pair: str) -> tuple[str, Any]:
    word, equals, value = pair.partition("=")
    if word not in _FIELDS or not equals:
        raise ValueError(f"{text}: {pair!r} is no word=value with one of {', '.join(_FIELDS)}")
    field, read = _FIELDS[word]
    return field, read(value)


def _dialects() -> tuple[str, ...]:
    return get_args(DialectName)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mvllm_router.sim", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--dialect", choices=_dialects(), default="vllm")
    parser.add_argument("--model", action="append", help="a served name; may be repeated")
    for word, (field, read) in _FIELDS.items():
        parser.add_argument(f"--{word}", dest=field, type=read, metavar="VALUE")
    parser.add_argument("--engine", action="append", default=[], metavar="SPEC")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one; others follow it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parent-pipe", action="store_true", help="obey stdin, end with it")
    return parser


def _profiles(options: argparse.Namespace) -> list[Profile]:
    if options.engine:
        return [parse_engine(text) for text in options.engine]
    given = {field: getattr(options, field) for field, _ in _FIELDS.values()}
    profile = Profile(options.dialect, tuple(options.model or ("tiny",)))
    return [replace(profile, **{k: v for k, v in given.items() if v is not None})]


async def _serve(options: argparse.Namespace, profiles: list[Profile]) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    pipe = ParentPipe(stop) if options.parent_pipe else None
    async with AsyncExitStack() as stack:
        engines = []
        for index, profile in enumerate(profiles):
            engine = SimEngine(profile, seed=options.seed + index)
            stack.push_async_callback(engine.stop)
            await engine.start(options.host, options.port + index if options.port else 0)
            engines.append(engine)
        announce({"url": engines[0].url, "urls": [engine.url for engine in engines]})
        if pipe is not None:
            commands = asyncio.ensure_future(_obey(pipe, Commands(engines)))
            stack.callback(commands.cancel)
        await stop.wait()


async def _obey(pipe: ParentPipe, commands: Commands) -> None:
    while (line := await pipe.line()) is not None:
        announce(commands.answer(line))


def main() -> None:
    """Serve until SIGTERM, Ctrl-C or, with --parent-pipe, the end of stdin."""
    parser = _parser()
    options = parser.parse_args()
    try:
        profiles = _profiles(options)
    except ValueError as error:
        parser.error(str(error))
    run(_serve(options, profiles))


if __name__ == "__main__":
    main()
