"""The package's own promises: versions, and dependencies tested at their oldest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def lower_bounds(table: str) -> dict[str, str]:
    found = re.search(rf"^{table} = \[(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\w.]+)', found[1]))


def oldest() -> dict[str, str]:
    text = (ROOT / "tests" / "oldest.txt").read_text()
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", text, re.MULTILINE))


def numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


@pytest.mark.parametrize("table", ["dependencies", "test"])
def test_each_lower_bound_is_the_version_that_is_tested(table: str) -> None:
    bounds, tested = lower_bounds(table), oldest()
    assert len(bounds) >= 4
    for name, bound in bounds.items():
        assert numbers(tested[name]) == numbers(bound), name


def test_oldest_names_nothing_else() -> None:
    named = {**lower_bounds("dependencies"), **lower_bounds("test")}
    assert set(oldest()) - set(named) == {"click"}  # what the oldest typer was made for
