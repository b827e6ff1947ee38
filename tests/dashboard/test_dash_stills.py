"""The pictures are as they were: at every size, with few servers and with many."""

from __future__ import annotations

import pytest
from stills import FOLDER, STILLS, Still, path_of, take


@pytest.mark.parametrize("still", STILLS, ids=lambda still: still.name)
async def test_the_picture_is_as_it_was(still: Still) -> None:
    """Where the change is meant: `python tests/dashboard/stills.py`, and look at the difference."""
    assert (await take(still)).splitlines() == path_of(still).read_text("utf-8").splitlines()


@pytest.mark.parametrize("still", STILLS, ids=lambda still: still.name)
def test_no_line_is_wider_or_lower_than_the_terminal(still: Still) -> None:
    lines = path_of(still).read_text("utf-8").splitlines()
    assert len(lines) == still.size[1]
    assert max(len(line) for line in lines) <= still.size[0]


def test_there_is_no_picture_that_nobody_makes() -> None:
    assert set(FOLDER.iterdir()) == {path_of(still) for still in STILLS}
