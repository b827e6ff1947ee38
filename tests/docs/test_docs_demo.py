"""The README's first two commands, as a reader would type them: the demo, then the request."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

import pytest
from docs_text import ROOT, commands, text_of


def wait_for_address(log: IO[str]) -> str:
    """The demo's address, once all three of its servers are up."""
    address, up = "", 0
    for line in log:
        if found := re.search(r"mvllm-router \S+ on (http://\S+),", line):
            address = found[1]
        up += "up: health check passed" in line
        if address and up == 3:
            return address
    raise AssertionError("the demo ended before its servers were up")


@pytest.fixture
def demo() -> Iterator[str]:
    """The address of a router that was started as the README says, on a free port."""
    (line,) = {line for line in commands(text_of("README.md")) if line == "router run --demo"}
    command = [sys.executable, "-m", "mvllm_router", *shlex.split(line)[1:], "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield wait_for_address(process.stderr)
        finally:
            process.terminate()
            process.communicate()


def request_of_the_readme() -> tuple[str, dict[str, str], dict[str, Any]]:
    """Path, headers and body of the README's `curl`."""
    (line,) = [line for line in commands(text_of("README.md")) if line.startswith("curl ")]
    words = shlex.split(line)
    name, _, value = words[words.index("-H") + 1].partition(": ")
    path = words[1].removeprefix("http://127.0.0.1:8888")
    return path, {name: value}, json.loads(words[words.index("-d") + 1])


def test_the_first_request_of_the_readme_is_answered_by_a_whole_stream(demo: str) -> None:
    path, headers, body = request_of_the_readme()
    request = urllib.request.Request(demo + path, json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-router-backend"] in ("big-gpu", "old-gpu")
        text = answer.read().decode()
    assert text.count("data: {") > 1
    assert text.endswith("data: [DONE]\n\n")
