"""The package is a house whose floors only look down, and its decisions need no event loop.

Imports inside functions and under TYPE_CHECKING must point down as well; only for cycles are
they left out, since they are not made while modules load.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mvllm_router

PACKAGE = "mvllm_router"
ROOT = Path(mvllm_router.__file__).parent

# The lowest first. Those on one floor do not import each other.
FLOORS = (
    {
        "config",
        "errors",
        "fields",
        "files",
        "histogram",
        "itself",
        "logs",
        "repeated",
        "tasks",
        "tls",
    },
    {"pool"},
    {"policies", "engines", "auth", "cors"},
    {"front"},
    {"proxy", "control"},
    {"launch"},
    {"api", "assembly"},
    {"server"},
    {"client", "sim"},
    {"dashboard"},
    {"cli", "__main__"},
)
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}

# What stands higher and yet knows nothing of the house: they speak HTTP to it.
APART = {"client": set(FLOORS[0]), "sim": {""}, "dashboard": {*FLOORS[0], "client"}}

WITHOUT_LOOP = [name for floor in FLOORS[:3] for name in sorted(floor) if name != "tasks"]
IO = {
    "asyncio",
    "aiohttp",
    "uvloop",
    "httptools",
    "watchfiles",
    "zmq",
    "socket",
    "ssl",
    "urllib.request",
}
# What TLS asks for and the loop carries out: it reads files, and opens no connection.
ALLOWED = {"tls": "ssl"}


@dataclass(frozen=True)
class Import:
    """One import: which module makes it, what it names, and whether it is made on loading."""

    by: str
    target: str
    on_loading: bool


def module_name(file: Path) -> str:
    parts = [PACKAGE, *file.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def part_of(module: str) -> str:
    """Return the part of the house that a module belongs to; "" is the package itself."""
    return module.split(".")[1] if "." in module else ""


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        assert node.level == 0, "imports name the package in full"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in MODULES else str(node.module)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_below(node: ast.AST, by: str, on_loading: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield from (Import(by, target, on_loading) for target in targets(child))
        else:
            later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            stays = on_loading and not later and not is_type_checking(child)
            yield from imports_below(child, by, stays)


def all_imports() -> list[Import]:
    return [
        found
        for name, file in MODULES.items()
        for found in imports_below(ast.parse(file.read_text("utf-8")), name, True)
    ]


IMPORTS = all_imports()
OWN = [found for found in IMPORTS if found.target in MODULES]


def test_each_module_has_its_floor() -> None:
    assert {part_of(name) for name in MODULES} - {""} == set(FLOOR_OF)


def test_every_import_of_our_own_is_understood() -> None:
    ours = {found.target for found in IMPORTS if found.target.split(".")[0] == PACKAGE}
    assert ours <= set(MODULES)
    assert len(OWN) > len(MODULES), "hardly any import was found: the test looks wrong"


def test_imports_point_down() -> None:
    upward = [
        f"{found.by} imports {found.target}"
        for found in OWN
        if part_of(found.target) not in ("", part_of(found.by))
        and part_of(found.by) != ""
        and FLOOR_OF[part_of(found.target)] >= FLOOR_OF[part_of(found.by)]
        # Floor 0 has no order of its own beyond that it has no cycles.
        and not {part_of(found.target), part_of(found.by)} <= FLOORS[0]
        and (part_of(found.by), part_of(found.target)) != ("__main__", "cli")
    ]
    assert upward == []


def test_the_package_itself_imports_nothing() -> None:
    assert [found.target for found in OWN if found.by == PACKAGE] == []


@pytest.mark.parametrize("part", APART)
def test_what_speaks_http_to_the_router_knows_nothing_of_it(part: str) -> None:
    known = {part_of(found.target) for found in OWN if part_of(found.by) == part}
    assert known - {part} <= APART[part]


def test_there_is_no_cycle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in OWN:
        if found.on_loading:
            graph[found.by].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_decisions_know_nothing_of_the_event_loop_or_the_network() -> None:
    found = [
        f"{one.by} imports {one.target}"
        for one in IMPORTS
        if part_of(one.by) in WITHOUT_LOOP
        and {one.target, one.target.split(".")[0]} & IO
        and ALLOWED.get(part_of(one.by)) != one.target
    ]
    assert found == []


def test_neither_does_anything_that_they_load() -> None:
    names = [name for name in MODULES if part_of(name) in WITHOUT_LOOP]
    code = (
        f"import sys, {', '.join(names)};"
        "print(*[name for name in ('asyncio', 'aiohttp', 'uvloop') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
