"""A thorough run takes minutes for a test; the limit is for those that hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_inputs import THOROUGH

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if THOROUGH and item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(0))
