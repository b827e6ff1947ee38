"""Following a publisher that is really there: what it sends, misses, repeats, and its restarts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import zmq.asyncio
from kv_kit import SIZE, Publisher, removed, stored
from pool_kit import add_up, new_pool
from support import until

from mvllm_router.control import kv_follower
from mvllm_router.control.kv_follower import Follower, Lost
from mvllm_router.control.kv_sources import read_sources
from mvllm_router.policies.kv_index import KvIndex, Prompt
from mvllm_router.policies.kv_wire import pack

TOKENS = list(range(8 * SIZE))


def block(number: int) -> dict[str, object]:
    """Return the event that the block of this number comes, from 1, behind those before it."""
    part = TOKENS[(number - 1) * SIZE : number * SIZE]
    return stored([number], part, number - 1 if number > 1 else None)


class Following:
    """A follower that runs; `cached` are the blocks that it knows from the first on."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.context = zmq.asyncio.Context()
        self.index = KvIndex()
        self.source = self.index.join(add_up(new_pool(), "s0", "m"))
        [told] = read_sources(publisher.sources.encode(), "http://127.0.0.1:1")
        follower = Follower(self.context, self.index, self.source, told)
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(follower.run(self.ready))

    async def __aenter__(self) -> Following:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.context.destroy(linger=0)

    @property
    def cached(self) -> int:
        runs = self.index.runs(Prompt(pack(TOKENS)))
        return max((length for length, _ in runs), default=0) // SIZE

    async def begun(self) -> None:
        await self.publisher.subscribed()
        await self.ready.wait()

    async def lost(self) -> str:
        """Wait until it gives up; return why."""
        with pytest.raises(Lost) as caught:
            await asyncio.wait_for(self.task, 10)
        return str(caught.value)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with Publisher() as publisher:
        yield publisher


async def test_what_was_published_before_and_what_comes_is_known(publisher: Publisher) -> None:
    await publisher.publish(block(1), lost=True)
    await publisher.publish(block(2), lost=True)
    async with Following(publisher) as following:
        await following.begun()
        assert following.cached == 2
        await publisher.publish(block(3), block(4))
        await until(lambda: following.cached == 4)
        await publisher.publish(removed(4))
        await until(lambda: following.cached == 3)
    assert publisher.asked == [0]


async def test_what_was_missed_is_asked_for_again(publisher: Publisher) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.publish(block(1))
        for number in (2, 3, 4):
            await publisher.publish(block(number), lost=True)
        await publisher.publish(block(5))
        await until(lambda: following.cached == 5)
        assert publisher.asked == [0, 1]
        await publisher.publish(block(6))
        await until(lambda: following.cached == 6)
    assert publisher.asked == [0, 1], "it asked though nothing was missed"


async def test_what_cannot_be_had_again_makes_all_of_it_unknown(publisher: Publisher) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.publish(block(1), block(2))
        await until(lambda: following.cached == 2)
        publisher.kept = 1
        await publisher.publish(removed(2), lost=True)
        await publisher.publish(stored([10], TOKENS[:SIZE]))
        await until(lambda: list(following.source.numbers) == [10])
        await publisher.publish(stored([11], TOKENS[SIZE : 2 * SIZE], 10))
        await until(lambda: following.cached == 2)


async def test_without_a_place_to_ask_a_gap_makes_all_of_it_unknown() -> None:
    async with Publisher(replay=False) as publisher:
        await publisher.publish(block(1), lost=True)
        async with Following(publisher) as following:
            await following.begun()
            await publisher.publish(block(1), block(2))
            await until(lambda: following.cached == 2)
            await publisher.publish(removed(2), lost=True)
            await publisher.publish(stored([10], TOKENS[:SIZE]))
            await until(lambda: list(following.source.numbers) == [10])
        assert publisher.asked == []


async def test_a_gap_among_what_was_asked_for_is_asked_for_once_more(
    publisher: Publisher,
) -> None:
    for number in (1, 2, 3, 4):
        await publisher.publish(block(number), lost=True)
    whole = publisher.messages
    publisher.messages = [whole[0], whole[1], whole[3]]
    async with Following(publisher) as following:
        await until(lambda: 2 in publisher.asked)
        await following.begun()
    # It asked for the third, was given the fourth, and so took it that nobody has the third.
    assert publisher.asked == [0, 2]
    assert following.source.numbers == {}


async def test_a_message_that_came_both_ways_counts_once(publisher: Publisher) -> None:
    await publisher.publish(block(1), lost=True)
    async with Following(publisher) as following:
        await following.begun()
        await publisher.publish(removed(1), lost=True)
        await publisher.publish(block(1), lost=True)
        # The first of them comes late by itself, when it was asked for already.
        publisher.count -= 1
        held = publisher.messages[:]
        await publisher.publish(block(1))
        publisher.messages = held
        await until(lambda: len(publisher.asked) == 2)
        await publisher.publish(block(2))
        await until(lambda: following.cached == 2)


async def test_an_engine_that_begins_anew_is_lost(publisher: Publisher) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.publish(block(1))
        await until(lambda: following.cached == 1)
        await publisher.restart()
        assert await following.lost() == "the connection broke"


async def test_numbers_that_begin_anew_on_the_same_connection_are_noticed(
    publisher: Publisher,
) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.publish(block(1))
        await publisher.publish(block(2))
        publisher.count = 0
        await publisher.publish(block(1))
        assert await following.lost() == "the engine began anew"


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x93\x01\x91\x03\xc0"])
async def test_what_makes_no_sense_is_not_followed(publisher: Publisher, content: bytes) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.send(content)
        assert "cannot be read" in await following.lost()


@pytest.mark.parametrize(
    "frames",
    [(), (b"",), (b"\0" * 7, b""), (b"\0" * 9, b""), (b"\xff" * 8, b""), (b"\x80" * 8, b"")],
)
async def test_neither_is_what_has_no_number(
    publisher: Publisher, frames: tuple[bytes, ...]
) -> None:
    async with Following(publisher) as following:
        await following.begun()
        await publisher.send_frames(*frames)
        assert await following.lost() == "what it publishes are no KV events"


async def test_nobody_at_the_address_is_said(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_follower, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        publisher.addresses = [f"tcp://127.0.0.1:{listener.getsockname()[1]}"] * 2
    async with Following(publisher) as following:
        assert "nobody answers at tcp://127.0.0.1:" in await following.lost()


async def test_other_topics_are_not_listened_to(publisher: Publisher) -> None:
    async with Following(publisher) as following:
        await following.begun()
        publisher.topic, own = b"other", publisher.topic
        await publisher.publish(removed(1))
        publisher.topic = own
        await publisher.publish(block(1))
        await until(lambda: len(publisher.asked) == 2, timeout=5)
        await until(lambda: following.cached == 1)
