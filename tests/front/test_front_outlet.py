"""What is written is collected for a round of the loop, and loses neither bytes nor their order."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest
from support import until

from mvllm_router.front.outlet import Outbox, Outlet

LARGE = 100_000  # bytes


class Wire:
    """Notes what reaches the socket, and how it ends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends: list[str] = []
        self.over_tls = False

    def write(self, data: bytes) -> None:
        assert not self.ends, "written after the end"
        self.sent.append(data)

    def is_closing(self) -> bool:
        return bool(self.ends)

    def can_write_eof(self) -> bool:
        return not self.over_tls

    def write_eof(self) -> None:
        self.ends.append("finish")

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")

    def get_write_buffer_size(self) -> int:
        return 7

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""


@pytest.fixture
def wire() -> Wire:
    return Wire()


def outlet_of(wire: Wire, outbox: Outbox | None = None) -> Outlet:
    return Outlet(cast(asyncio.Transport, cast(Any, wire)), outbox or Outbox())


async def test_what_a_round_writes_goes_out_together_at_its_end(wire: Wire) -> None:
    outbox, other = Outbox(), Wire()
    first, second = outlet_of(wire, outbox), outlet_of(other, outbox)
    first.write(b"a")
    second.write(b"1")
    first.write(b"b")
    assert wire.sent == other.sent == []
    await asyncio.sleep(0)
    assert (wire.sent, other.sent) == ([b"ab"], [b"1"])
    first.write(b"c")
    await asyncio.sleep(0)
    assert (wire.sent, other.sent) == ([b"ab", b"c"], [b"1"])


async def test_a_large_piece_goes_out_at_once_behind_what_came_before_it(wire: Wire) -> None:
    outlet, large = outlet_of(wire), b"x" * LARGE
    outlet.write(b"a")
    outlet.write(large)
    assert wire.sent == [b"a", large]  # not copied together
    outlet.write(b"b")
    await asyncio.sleep(0)
    assert wire.sent == [b"a", large, b"b"]


async def test_what_is_sent_at_once_goes_out_behind_what_was_written(wire: Wire) -> None:
    outlet = outlet_of(wire)
    outlet.send(b"1")
    outlet.write(b"2")
    outlet.send(b"3")
    assert wire.sent == [b"1", b"23"]
    await asyncio.sleep(0)
    assert wire.sent == [b"1", b"23"]
    wire.abort()
    outlet.send(b"for nobody")
    assert wire.sent == [b"1", b"23"]


async def test_what_was_written_goes_out_before_the_end(wire: Wire) -> None:
    outlet = outlet_of(wire)
    outlet.write(b"last words")
    outlet.close()
    assert (wire.sent, wire.ends) == ([b"last words"], ["close"])
    await asyncio.sleep(0)


@pytest.mark.parametrize("over_tls", [False, True])
async def test_the_writing_end_is_closed_where_that_can_be(wire: Wire, over_tls: bool) -> None:
    outlet, wire.over_tls = outlet_of(wire), over_tls
    outlet.write(b"last words")
    outlet.finish()
    assert wire.sent == [b"last words"]
    assert wire.ends == ([] if over_tls else ["finish"])
    await asyncio.sleep(0)


async def test_an_abort_loses_what_was_not_sent(wire: Wire) -> None:
    outlet = outlet_of(wire)
    outlet.write(b"lost")
    outlet.abort()
    await asyncio.sleep(0)
    assert (wire.sent, wire.ends) == ([], ["abort"])


async def test_nothing_is_sent_to_who_has_left_in_the_same_round(wire: Wire) -> None:
    outbox, other = Outbox(), Wire()
    outlet, stays = outlet_of(wire, outbox), outlet_of(other, outbox)
    outlet.write(b"for nobody")
    stays.write(b"for somebody")
    wire.abort()  # by the other side
    await asyncio.sleep(0)
    assert (wire.sent, other.sent) == ([], [b"for somebody"])


async def test_what_was_not_sent_yet_counts_as_unsent(wire: Wire) -> None:
    outlet = outlet_of(wire)
    assert outlet.unsent == 7
    outlet.write(b"abc")
    assert outlet.unsent == 10
    await asyncio.sleep(0)
    assert outlet.unsent == 7


class Reading(asyncio.Protocol):
    """Reads all from the other end of a connection, once it may."""

    def __init__(self) -> None:
        self.read = bytearray()

    def data_received(self, data: bytes) -> None:
        self.read += data


@pytest.mark.parametrize("how", ["send", "write"])
async def test_what_a_socket_does_not_take_at_once_follows_in_order(how: str) -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    loop = asyncio.get_running_loop()
    writing, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    reader, reading = await loop.create_connection(Reading, sock=far)
    reader.pause_reading()
    outlet = Outlet(writing, Outbox())
    pieces = [bytes([65 + n % 26]) * (n * 37 % 5000) for n in range(1, 200)]
    for piece in pieces:
        (outlet.send if how == "send" else outlet.write)(piece)
        if how == "write":
            outlet.flush()
    assert 0 < outlet.unsent < sum(map(len, pieces))  # the socket took some, and not all
    reader.resume_reading()
    await until(lambda: len(reading.read) == sum(map(len, pieces)))
    assert reading.read == b"".join(pieces)
    assert outlet.unsent == 0
    outlet.close()
    reader.close()


async def test_a_socket_that_is_broken_is_found_out_by_its_transport() -> None:
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()

    class Writing(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            lost.set()

    transport, _ = await loop.create_connection(Writing, sock=near)
    far.close()
    Outlet(transport, Outbox()).send(b"for nobody")
    await asyncio.wait_for(lost.wait(), 10)
