"""The client of the benchmarks: all is sent when it is due, and every end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from client import Call, Sender
from figures import Window, figures
from fleet import Counts
from workloads import Request, request

from mvllm_router.sim import Fault, Profile, SimEngine


def requests(count: int, tokens: int = 3) -> list[Request]:
    messages = [{"role": "user", "content": "hello"}]
    return [request(0.01 * number, messages, tokens) for number in range(count)]


async def sent(url: str, some: Sequence[Request]) -> list[Call]:
    return await Sender(url).send(some, [])


async def test_all_are_answered_over_few_connections() -> None:
    async with SimEngine(Profile("vllm", ("tiny",))) as engine:
        calls = await sent(engine.url, requests(30))
        assert engine.served == 30
    assert [call.error for call in calls] == [""] * 30
    assert all(call.due <= call.sent < call.first <= call.ended for call in calls)


async def test_requests_do_not_wait_for_those_before_them() -> None:
    async with SimEngine(Profile("vllm", ("tiny",))) as engine:
        engine.hold()
        task = asyncio.ensure_future(sent(engine.url, requests(20)))
        await engine.wait_for(lambda e: e.running + e.waiting == 20)
        engine.release()
        assert not any(call.error for call in await task)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.ERROR_500, "status 500"),
        (Fault.RESET, "lost"),
        (Fault.DROP, "lost"),
        (Fault.ENGINE_DEATH, "broken off"),
    ],
)
async def test_what_fails_is_told(fault: Fault, error: str) -> None:
    async with SimEngine(Profile("vllm", ("tiny",))) as engine:
        engine.inject(fault, times=1, after_events=1)
        calls = await sent(engine.url, requests(3))
    assert [call.error for call in calls] == [error, "", ""]


async def test_nobody_listens() -> None:
    engine = SimEngine(Profile("vllm", ("tiny",)))
    await engine.start()
    await engine.stop()
    (call,) = await sent(engine.url, requests(1))
    assert call.error.startswith("refused")


async def test_a_connection_that_was_closed_while_idle_is_no_error() -> None:
    async with SimEngine(Profile("llama.cpp", ("tiny",))) as engine:  # 100 answers for each
        calls = await sent(engine.url, requests(250))
    assert not any(call.error for call in calls)


async def test_things_are_done_at_their_time() -> None:
    order: list[str] = []

    async def look(name: str) -> None:
        order.append(name)

    some = [request(due, [], 1) for due in (-0.05, 0.05)]
    async with SimEngine(Profile("vllm", ("tiny",))) as engine:
        things = [(0.02, lambda: look("second")), (0.0, lambda: look("first"))]
        await Sender(engine.url).send(some, things)
    assert order == ["first", "second"]


# --- figures


def call(due: float, first: float, ended: float, error: str = "") -> Call:
    """Times are seconds after the request was due."""
    some = request(due, [], 1)
    return Call(some, 100 + due, 100 + due, first and 100 + due + first, 100 + due + ended, error)


def test_only_what_is_counted_counts_and_errors_are_not_good() -> None:
    calls = [
        call(-1, 0.2, 0.4),
        call(0, 0.1, 0.5),
        call(1, 0.3, 0.6),
        call(2, 0.1, 0.2, "lost"),
        call(3, 0, 0.01, "status 503"),
    ]
    counts = [Counts(3, 100, 40), Counts(1, 100, 20), Counts()]
    got = figures(calls, counts, Window(10.0, slo=0.2))
    assert (got["requests"], got["errors"], got["goodput"]) == (4, 2, 0.1)
    assert got["done"] == 0.2  # the first one ended before that
    assert got["ttft mean"] == pytest.approx(500 / 3)  # one had no first token
    assert got["e2e p99"] == pytest.approx(600)
    assert got["hits"] == 30
    assert [got[f"server {n} %"] for n in (1, 2, 3)] == [75, 25, 0]


def test_what_never_began_has_waited_at_least_so_long() -> None:
    calls = [call(0, 0.1, 0.2), call(1, 0, 20, "no end")]
    got = figures([*calls, call(-1, 1, 2)], [Counts()], Window(10.0, slo=0.2))
    assert got["done"] == 0.2  # also what was due before ends while it is counted
    assert got["ttft p99"] == pytest.approx(20_000)


def test_phases_of_a_change() -> None:
    calls = [call(due, 0.1 if due < 5 else 0.3 if due < 15 else 0.2, 1) for due in range(20)]
    got = figures(calls, [Counts()], Window(20.0, slo=1, change=5))
    means = [got[f"{phase} ttft mean"] for phase in ("before", "soon", "later")]
    assert means == pytest.approx([100, 300, 200])
