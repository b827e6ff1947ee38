"""How much memory servers take, with all that they have started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mvllm_router.launch import memory
from mvllm_router.launch.guard import signalled
from mvllm_router.launch.memory import memory_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")

MIB = 2**20
# It takes 50 MiB, and its child another 50.
PARENT = """
import subprocess, sys, time
code = "held = b'x' * (50 * 2**20); print('ready', flush=True); import time; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
held = b"x" * (50 * 2**20)
print("ready", flush=True)
time.sleep(600)
"""


def test_the_memory_of_a_group_is_that_of_all_its_processes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = memory_of({process.pid, 2**22 + 1})
        assert set(found) == {process.pid}
        assert 100 * MIB < found[process.pid] < 300 * MIB
    finally:
        signalled(process.pid, 9)
        process.communicate()


def test_ps_is_asked_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    with_proc = memory_of({os.getpgrp()})
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    without = memory_of({os.getpgrp()})
    assert set(with_proc) == set(without) == {os.getpgrp()}
    assert all(size > MIB for size in (*with_proc.values(), *without.values()))
