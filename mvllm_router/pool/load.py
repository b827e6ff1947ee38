"""How busy a backend is: the score by which requests are placed."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

# A scrape older than this many scrape intervals says nothing about now.
STALE_AFTER_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What an engine said of itself at one scrape; None is "it did not say".

    `running` and `waiting` count requests, `kv_usage` is a share from 0 to 1, the token
    counters only grow.
    """

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None


class Scrape:
    """A sample with its moment (monotonic seconds) and the router's own count then."""

    __slots__ = ("at", "others", "own", "sample", "waiting")

    def __init__(self, sample: Sample, at: float, own: int) -> None:
        self.sample = sample
        self.at = at
        self.own = own
        self.waiting = sample.waiting or 0.0
        # Requests that somebody else has put on the server.
        self.others = max(0.0, (sample.running or 0.0) + self.waiting - own)


class Load(msgspec.Struct, frozen=True, gc=False):
    """Requests on a backend now: those that run, those that wait, and what it can run.

    `share` is how fast it is beside the fastest, from 0 to 1. A struct, since each look of a
    dashboard makes one for each server.
    """

    running: float
    waiting: float
    capacity: float
    share: float = 1.0

    @property
    def score(self) -> float:
        """(running + 0.5 * waiting) / (capacity * share); the lowest is chosen."""
        return (self.running + 0.5 * self.waiting) / (self.capacity * self.share)


def estimate(in_flight: int, capacity: float, scrape: Scrape | None, share: float = 1.0) -> Load:
    """Combine the router's own exact count with what a scrape adds to it.

    Scraped figures lag by seconds, so the own count decides and the scrape only tells
    what others have put there:

        others  = max(0, scraped running + waiting - own in flight at the scrape)
        load    = others + own in flight now
        waiting = min(scraped waiting, load)
        running = load - waiting

    Args:
        in_flight: requests that this router has on the backend now.
        capacity: requests that it runs at once, above 0.
        scrape: the newest scrape, or None when there is none that still counts.
        share: how fast it is beside the fastest, above 0 up to 1.
    """
    if scrape is None:
        return Load(float(in_flight), 0.0, capacity, share)
    load = scrape.others + in_flight
    waiting = min(scrape.waiting, load)
    return Load(load - waiting, waiting, capacity, share)
