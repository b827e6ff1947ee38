"""Clients that ask a router while a test does something to its servers, and what they saw."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import openai
import pytest
from support import until

import mvllm_router

PATIENCE = 60.0  # seconds for what takes a few at most; only what hangs takes as long
ENDLESS = 1_000_000  # tokens
PAUSE = 0.05  # seconds between two requests of a client; engines need the processor too

_ROOT = Path(mvllm_router.__file__).parents[1]


@dataclass(eq=False)
class Call:
    """One request, and what its client has seen of the answer so far."""

    stream: bool
    tokens: int
    chat: bool = False
    status: int = 0
    backend: str = ""
    attempts: int = 0
    events: int = 0  # with text or the like; of a whole answer 1
    finish: str = ""  # why the model ended, as the server says
    error: str = ""  # the message of an error event, or of an answer that is an error
    done: bool = False  # the end that it has to have was there: [DONE], or the whole JSON
    lost: str = ""  # how the connection ended where it should not have

    @property
    def is_whole(self) -> bool:
        """Whether it was answered as if nothing had happened."""
        ended = self.done and self.finish == "length"
        return self.status == 200 and ended and not self.error and not self.lost

    @property
    def is_broken_off(self) -> bool:
        """Whether it is a stream that began, and ended with an error and nothing after it."""
        return self.status == 200 and self.stream and bool(self.error) and not self.done


class Clients:
    """Asks one router for one model; at the end of the context whoever still waits leaves."""

    def __init__(self, url: str, model: str) -> None:
        self.calls: list[Call] = []
        self._url = url
        self._model = model
        self._answering: dict[Call, asyncio.Task[None]] = {}
        self._asking: list[asyncio.Task[None]] = []
        self._resting = False

    async def __aenter__(self) -> Clients:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=2 * PATIENCE),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [*self._asking, *self._answering.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    # --- asking

    def ask(self, *, stream: bool, tokens: int, chat: bool = False) -> Call:
        """Begin a request; its answer is read while the test goes on."""
        call = Call(stream, tokens, chat)
        self.calls.append(call)
        self._answering[call] = asyncio.create_task(self._answer(call))
        return call

    def ask_all(self, count: int, *, tokens: int) -> list[Call]:
        """Begin `count` requests of four kinds in turn: whole and as a stream, chat or not."""
        return [self._ask_kind(number, tokens) for number in range(count)]

    def _ask_kind(self, number: int, tokens: int) -> Call:
        return self.ask(stream=number % 2 > 0, chat=number % 4 > 1, tokens=tokens)

    def keep_asking(self, clients: int, *, tokens: int) -> None:
        """Let `clients` ask, each again when it has its answer, until `rest`."""
        self._asking += [
            asyncio.create_task(self._ask_again_and_again(number, tokens))
            for number in range(clients)
        ]

    async def _ask_again_and_again(self, first: int, tokens: int) -> None:
        for number in itertools.count(first):
            if self._resting:
                return
            await self.answered(self._ask_kind(number, tokens))
            await asyncio.sleep(PAUSE)

    async def rest(self) -> None:
        """Ask no more, and wait until all that was asked is answered."""
        self._resting = True
        await asyncio.gather(*self._asking)
        await self.answered(*self.calls)

    async def answered(self, *calls: Call) -> None:
        """Wait until these have ended, well or not."""
        await asyncio.gather(*(self._answering[call] for call in calls))

    async def begun(self, calls: Sequence[Call]) -> None:
        """Wait until each of these has its first event."""
        await until(lambda: all(call.events for call in calls), timeout=PATIENCE)

    def answered_by(self, backend: str) -> list[Call]:
        return [call for call in self.calls if call.backend == backend and call.is_whole]

    # --- reading

    async def _answer(self, call: Call) -> None:
        said = (
            {"messages": [{"role": "user", "content": "Dafi"}]} if call.chat else {"prompt": "Dafi"}
        )
        body = {"model": self._model, "max_tokens": call.tokens, "stream": call.stream, **said}
        path = "/v1/chat/completions" if call.chat else "/v1/completions"
        try:
            async with self._session.post(self._url + path, json=body) as answer:
                call.status = answer.status
                call.backend = answer.headers.get("x-router-backend", "")
                call.attempts = int(answer.headers.get("x-router-attempts", 0))
                is_stream = answer.content_type == "text/event-stream"
                await (_read_events if is_stream else _read_json)(answer, call)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            call.lost = repr(error)


async def _read_events(answer: aiohttp.ClientResponse, call: Call) -> None:
    async for line in answer.content:
        data = line.removeprefix(b"data:").strip()
        if data == line.strip():
            continue  # a comment, or what separates events
        if data == b"[DONE]":
            call.done = True
        elif error := json.loads(data).get("error"):
            call.error = error["message"]
        else:
            assert not call.done, "events after the end"
            call.events += 1
            call.finish = _finish(json.loads(data)) or call.finish


async def _read_json(answer: aiohttp.ClientResponse, call: Call) -> None:
    document = await answer.json()
    if error := document.get("error"):
        call.error = error["message"]
    else:
        call.events, call.done, call.finish = 1, True, _finish(document)


def _finish(document: dict[str, Any]) -> str:
    return "".join(choice["finish_reason"] or "" for choice in document["choices"])


class SdkStream:
    """A stream that the official client reads; the context begins with its first event."""

    def __init__(self, url: str, model: str, tokens: int) -> None:
        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)
        self._model = model
        self._tokens = tokens

    async def __aenter__(self) -> SdkStream:
        self._stream = await self._client.completions.create(
            model=self._model, prompt="Dafi", max_tokens=self._tokens, stream=True
        )
        await self._stream.__anext__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def error(self) -> str:
        """Read on to the error that has to come."""
        with pytest.raises(openai.APIError) as caught:
            async for _ in self._stream:
                pass
        return caught.value.message


@dataclass
class RouterProcess:
    """A `router run` that listens at `url`."""

    url: str
    process: Process

    async def until_shown(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until /router/snapshot fulfils a condition."""
        end = asyncio.get_running_loop().time() + PATIENCE
        async with aiohttp.ClientSession() as session:
            shown: dict[str, Any] = {}
            while not (shown and condition(shown)):
                assert asyncio.get_running_loop().time() < end, shown
                await asyncio.sleep(0.02)
                async with session.get(f"{self.url}/router/snapshot") as answer:
                    shown = await answer.json()


@asynccontextmanager
async def router_process(file: Path) -> AsyncIterator[RouterProcess]:
    """Run a router with this file for as long as the context lasts."""
    log = file.with_suffix(".log")
    words = ("run", "-c", str(file), "--console", "--port", "0")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ROUTER_")}
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mvllm_router", *words),
            env={**kept, "PYTHONPATH": path},
            stdin=DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:
        url = await _greeting(process, log)
        yield RouterProcess(url, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _greeting(process: Process, log: Path) -> str:
    """Return where it listens, once it says so."""

    def url() -> str:
        found = re.search(r" on (http://\S+),", log.read_text())
        return found[1] if found else ""

    await until(lambda: bool(url()) or process.returncode is not None, timeout=PATIENCE)
    assert url(), "the router ended: " + log.read_text()  # noqa: ASYNC240
    return url()


def engine_core(vllm: int) -> int:
    """Return the process in which the engine of a vLLM runs; `vllm` is the one that serves."""
    words = ["ps", "-A", "-o", "pid=,ppid=,command="]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()]
    (found,) = [
        int(pid) for pid, parent, name in rows if int(parent) == vllm and "EngineCore" in name
    ]
    return found
