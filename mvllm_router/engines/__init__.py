"""Engines: the dialects of the servers. One dict of names; users add theirs as entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from mvllm_router.config import ENGINE_PLUGINS
from mvllm_router.engines.base import Engine, is_uuid, read_models

ENGINES: dict[str, str] = {
    "vllm": "mvllm_router.engines.vllm:VLLM",
    "llama.cpp": "mvllm_router.engines.llamacpp:LlamaCpp",
    "llama-cpp-python": "mvllm_router.engines.llama_cpp_python:LlamaCppPython",
    "mlx": "mvllm_router.engines.mlx:MLX",
    "openai": "mvllm_router.engines.base:Engine",
}

_made: dict[str, Engine] = {}


def get(name: str) -> Engine:
    """Return the engine called `name`; engines keep no state, so there is one of each.

    One that has not been recognised yet ("auto") is spoken to as any OpenAI server.

    Raises:
        ValueError: neither a built-in engine nor an installed entry point has that name.
    """
    if name not in _made:
        _made[name] = _make(name)
    return _made[name]


def _make(name: str) -> Engine:
    name = "openai" if name == "auto" else name
    if name in ENGINES:
        return _built_in(ENGINES[name])
    for entry in entry_points(group=ENGINE_PLUGINS, name=name):
        return cast(Engine, entry.load()())
    raise ValueError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")


def _built_in(place: str) -> Engine:
    module, _, attribute = place.partition(":")
    return cast(Engine, getattr(import_module(module), attribute)())


__all__ = ["ENGINES", "Engine", "get", "is_uuid", "read_models"]
