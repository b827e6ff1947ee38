"""Real engines in place of the simulated servers: two vLLMs and a llama-server, on the processors.

`scripts/get-engines llama-server vllm models` installs them; the tests know how to start them. They
run as long as the benchmark, so each contestant's prompts begin with a word of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import MODEL, Kind, Server
from proxies import free_port
from workloads import Request

sys.path.append(str(Path(__file__).parents[2] / "tests" / "engines"))

import conftest as engines

_SYSTEM = b'{"role":"system","content":"'
_LLAMA = ("-c", "32768")  # for all its slots together


def _vllm() -> list[str]:
    """Return options for prompts of some thousand tokens, in the smallest blocks that there are on
    processors, and for events that tell what is in the cache.
    """
    told = {"enable_kv_cache_events": True, "publisher": "zmq"}
    told |= {"endpoint": f"tcp://*:{free_port()}", "replay_endpoint": f"tcp://*:{free_port()}"}
    events = ("--kv-events-config", json.dumps(told))
    return ["--max-model-len", "8192", "--block-size", "32", *events]


@contextlib.contextmanager
def servers() -> Iterator[list[Server]]:
    """Run the engines for as long as the context lasts; ends the program where one is missing."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = engines.Launcher(Path(folder))
        os.environ["VLLM_HOST_IP"] = "127.0.0.1"  # where its events are, as it tells it
        try:
            commands = [
                (8, engines.vllm_command(8, _vllm(), MODEL)),
                (4, engines.vllm_command(4, _vllm(), MODEL)),
                (4, engines.llama_server_command(4, _LLAMA, MODEL)),
            ]
            yield [Server(launcher.start(command).url, Kind(slots)) for slots, command in commands]
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            sys.exit(str(error))
        finally:
            launcher.stop_all()


def marked(requests: Sequence[Request], word: str) -> list[Request]:
    """Return chats whose system prompts begin with a word, so that no other's are found."""
    begin = _SYSTEM + word.encode() + b" "
    return [replace(each, body=each.body.replace(_SYSTEM, begin, 1)) for each in requests]
