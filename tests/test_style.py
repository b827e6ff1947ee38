"""The budget of the code: short functions, short files, all of it annotated, a quick start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

import mvllm_router

ROOT = Path(mvllm_router.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(function: Function) -> int:
    """Lines from `def` to the last one, the docstring included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def lengths() -> dict[str, int]:
    return {
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}": length(function)
        for file in FILES
        for function in functions(file)
    }


def test_functions_are_short() -> None:
    found = lengths()
    longest = sorted(found, key=lambda name: found[name])[-5:]
    assert len(found) > 100, "hardly any function was found: the test looks wrong"
    assert median(found.values()) <= 10
    assert quantiles(found.values(), n=20)[-1] <= 45, longest
    assert max(found.values()) <= 80, longest


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_fits_into_a_head(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_function_is_annotated(file: Path) -> None:
    bare = [
        f"{function.lineno} {function.name}: {', '.join(missing)}"
        for function in functions(file)
        if (missing := list(without_type(function)))
    ]
    assert bare == []


def without_type(function: Function) -> Iterator[str]:
    """Yield what has no annotation: parameters by name, and "return"."""
    taken = function.args
    named = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
    for parameter in (*named, taken.vararg, taken.kwarg):
        if parameter is None or parameter.annotation is not None:
            continue
        if parameter is not named[0] or parameter.arg not in ("self", "cls"):
            yield parameter.arg
    # As mypy has it: __init__ may leave out that it returns nothing if it takes something.
    if function.returns is None and function.name != "__init__":
        yield "return"


HEAVY = (
    "textual",
    "aiohttp",
    "asyncio",
    "uvloop",
    "prometheus_client",
    "watchfiles",
    "msgspec",
    "httptools",
    "zmq",
)


def test_the_command_starts_without_what_only_a_running_router_needs() -> None:
    code = (
        "import sys; import mvllm_router.cli.app;"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
