"""The package stays light: commands that need no server must start at once."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("asyncio", "aiohttp", "typer", "rich", "tomllib", "tomli", "difflib")


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import mvllm_router.config;"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
