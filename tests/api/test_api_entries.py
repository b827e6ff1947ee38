"""The entries of servers: what is kept of them as text is what a fresh look would say."""

from __future__ import annotations

import json

from admin_kit import written
from hypothesis.stateful import invariant
from pool_kit import Clock, add_up, new_pool
from pool_machine import PoolMachine

from mvllm_router.api.entries import Entries, server_entry


class EntriesMachine(PoolMachine):
    """Writes all entries after each step of a pool's life, by one writer."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = Entries(self.pool)

    @invariant()
    def what_is_written_is_what_is_known_now(self) -> None:
        shown = [json.loads(bytes(entry)) for entry in written(self.entries).servers]
        known = [server_entry(self.pool, backend) for backend in self.pool.backends.values()]
        assert shown == json.loads(json.dumps(known))
        # Nothing stays of servers that are gone.
        assert set(self.entries._kept) <= set(self.pool.backends.values())


TestEntries = EntriesMachine.TestCase


def test_failures_are_shown_as_they_come_and_as_they_are_forgotten() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend, entries = add_up(pool, "a"), Entries(pool)

    def failures() -> int:
        (entry,) = written(entries).servers
        shown: int = json.loads(bytes(entry))["circuit"]["failures"]
        return shown

    assert failures() == 0
    pool.request_failed(backend, "connection reset", clock())
    assert failures() == 1
    clock.advance(pool.circuit_rules.window)
    assert failures() == 0
