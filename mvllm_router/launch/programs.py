"""Finds the program of an engine on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mvllm_router.config import LaunchSpec
from mvllm_router.config.launches import looks_like_path
from mvllm_router.launch.faults import CannotLaunch

_INSTALL = {
    "vllm": "pip install 'mvllm-router[vllm]'",
    "llama-cpp-python": "pip install 'mvllm-router[llama-cpp]'",
    "mlx": "pip install 'mvllm-router[mlx]'",
}


@dataclass(frozen=True, slots=True)
class Program:
    """How an engine is started: `kind` tells its dialect of options, `argv` is how it begins."""

    kind: str
    argv: tuple[str, ...]


def find_program(launch: LaunchSpec) -> Program:
    """Return the program of a launch's engine, and check that its model is there.

    Raises:
        CannotLaunch: the engine is not installed, or the model's path leads nowhere.
    """
    _check_model(launch)
    if launch.engine == "command":
        return Program("command", (_existing(launch, launch.args[0]), *launch.args[1:]))
    if launch.engine_path:
        return _given(launch, _existing(launch, launch.engine_path))
    if launch.engine == "vllm":
        return Program("vllm", (_on_path(launch, "vllm"), "serve"))
    if launch.engine == "mlx":
        return _module(launch, "mlx", "mlx_lm", "mlx_lm", "server")
    if launch.engine == "llama.cpp" and (found := _which("llama-server")):
        return Program("llama-server", (found,))
    return _module(launch, "llama-cpp-python", "llama_cpp", "llama_cpp.server")


def _given(launch: LaunchSpec, path: str) -> Program:
    """Return the program for a path that was given: that of a Python where modules are run."""
    if launch.engine == "vllm":
        return Program("vllm", (path, "serve"))
    is_python = Path(path).name.startswith("python")
    if launch.engine == "mlx":
        words = ("-m", "mlx_lm", "server") if is_python else ()
        return Program("mlx", (path, *words))
    if is_python:
        return Program("llama-cpp-python", (path, "-m", "llama_cpp.server"))
    return Program("llama-server", (path,))


def _check_model(launch: LaunchSpec) -> None:
    model = launch.model
    if looks_like_path(model) and not Path(model).exists():
        hint = "a name of the model hub is written without ./ before it and .gguf behind it"
        raise CannotLaunch(f"{launch.name}: there is no model at {model}", hint)


def _existing(launch: LaunchSpec, program: str) -> str:
    found = _which(program)
    if found is None:
        raise CannotLaunch(f"{launch.name}: there is no program {program} that can be run")
    return found


def _on_path(launch: LaunchSpec, program: str) -> str:
    found = _which(program)
    if found is None:
        raise _not_installed(launch, launch.engine)
    return found


def _which(program: str) -> str | None:
    """Return where a program is: on the PATH, or beside the Python that we run on."""
    return shutil.which(program) or shutil.which(program, path=os.path.dirname(sys.executable))


def _module(launch: LaunchSpec, kind: str, module: str, *words: str) -> Program:
    if importlib.util.find_spec(module) is None:
        raise _not_installed(launch, kind)
    return Program(kind, (sys.executable, "-m", *words))


def _not_installed(launch: LaunchSpec, kind: str) -> CannotLaunch:
    what = {
        "vllm": "vLLM is not installed: there is no `vllm` on the PATH",
        "mlx": "mlx-lm is not installed in this Python",
        "llama-cpp-python": "llama-cpp-python is not installed in this Python",
    }[kind]
    if launch.engine == "llama.cpp":
        what = f"there is no `llama-server` on the PATH, and {what}"
    hint = f"{_INSTALL[kind]}, or name the engine's program with --engine-path (engine_path)"
    return CannotLaunch(f"{launch.name}: {what}", hint)
