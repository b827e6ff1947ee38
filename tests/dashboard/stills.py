"""Golden pictures of the dashboard as text: `python tests/dashboard/stills.py` makes them anew.

They are made from fixed documents and a clock that stands still, so that they change only with the
dashboard. Look at the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from dash_kit import FakeRouter, dashboard  # noqa: E402

FOLDER = HERE / "stills"
SECONDS = 240  # of history: the charts are not full yet


@dataclass(frozen=True, slots=True)
class Still:
    """One picture: of how many servers, at which size, after which keys."""

    name: str
    size: tuple[int, int]
    servers: int = 9
    keys: Sequence[str] = ()


STILLS = (
    Still("top-80x24", (80, 24), servers=3),
    Still("top-120x36", (120, 36)),
    Still("top-200x60", (200, 60), servers=50),
    Still("narrow-60x20", (60, 20), servers=3),
    Still("many-120x36", (120, 36), servers=500, keys=("G",)),
    Still("empty-80x24", (80, 24), servers=0),
    Still("events-120x36", (120, 36), keys=("2",)),
    Still("config-120x36", (120, 36), keys=("4",)),
    Still("latency-120x36", (120, 36), keys=("w",)),
    Still("filter-120x36", (120, 36), keys=("slash", *"state:up !03", "enter")),
    Still("details-120x36", (120, 36), keys=("j", "enter")),
)


async def take(still: Still) -> str:
    """Return the picture as text."""
    async with dashboard(FakeRouter(still.servers), still.size) as running:
        await running.pass_time(SECONDS)
        await running.press(*still.keys)
        await running.pass_time(1)
        return running.text() + "\n"


def path_of(still: Still) -> Path:
    return FOLDER / f"{still.name}.txt"


def main() -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()
    FOLDER.mkdir(exist_ok=True)
    for still in STILLS:
        path_of(still).write_text(asyncio.run(take(still)), encoding="utf-8")
        print(f"wrote {path_of(still).relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
