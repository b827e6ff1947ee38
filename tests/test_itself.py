"""The package run in a process of its own takes nothing from the folder that it is run in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mvllm_router import itself


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("json", "mvllm_router", "typer"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from here')\n")
    command = itself.command("mvllm_router", "--version")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mvllm-router ")
