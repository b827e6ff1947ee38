"""One server we send to: its settings, what it told us, and what we have in flight there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from mvllm_router.config import ServerSpec
from mvllm_router.pool.circuit import Circuit
from mvllm_router.pool.health import Health, State
from mvllm_router.pool.learned import Places, Speed, Waits
from mvllm_router.pool.load import Load, Scrape, estimate
from mvllm_router.pool.rest import Rest
from mvllm_router.pool.stats import BackendStats


@dataclass(frozen=True, slots=True)
class Absence:
    """Why nobody listens at a backend's address, as who starts it knows.

    `returns`: somebody will before long.
    """

    reason: str
    returns: bool


ModelCard = Mapping[str, Any]  # one entry of a server's /v1/models, as it came


class Backend:
    """The live state of one server. Only `Pool` changes it.

    Invariants: `in_flight` is the number of leases on it that are not released, and no lease
    is given while it has no room.
    """

    __slots__ = (
        "absence",
        "capacity",
        "cards",
        "cards_at",
        "circuit",
        "default_capacity",
        "draining",
        "engine",
        "engine_version",
        "etag",
        "health",
        "in_flight",
        "kept_score",
        "last_byte",
        "most",
        "one_at_a_time",
        "open_for",
        "places",
        "producing",
        "removed",
        "rest",
        "scrape",
        "scrape_expires",
        "seen_capacity",
        "share",
        "slots",
        "spec",
        "speed",
        "stats",
        "told_capacity",
        "turned_at",
        "waits",
    )

    def __init__(
        self, spec: ServerSpec, health: Health, circuit: Circuit, default_capacity: int
    ) -> None:
        self.spec = spec
        self.health = health
        self.circuit = circuit
        self.rest = Rest()
        self.stats = BackendStats()
        self.engine = spec.engine  # "auto" until it has been recognised
        self.engine_version: str | None = None  # as the engine tells it
        self.default_capacity = default_capacity
        self.seen_capacity = 0  # 0: not known
        self.told_capacity: int | None = None  # what the engine said it can run at once
        self.slots = 1  # requests it runs at once
        self.capacity = 1.0  # the same, scaled by its weight; above 0
        self.most = inf  # requests that it may get at once
        self.places = Places()
        self.speed = Speed(self.stats)
        self.waits = Waits()
        self.share = 1.0  # of the speed of the fastest that has a model in common with it
        # Requests that it would begin at once; one more would wait. At most `most`.
        self.open_for = inf
        self.size()
        self.one_at_a_time = False  # a second request would harm the first
        self.in_flight = 0
        self.producing = 0  # streams in flight that have begun
        self.scrape: Scrape | None = None
        self.scrape_expires = 0.0  # monotonic seconds
        # `score` as of the last thing that changed it: policies compare hundreds of them.
        self.kept_score = 0.0
        self.cards: Mapping[str, ModelCard] | None = None  # None: it has not told its models
        self.cards_at: float | None = None  # wall clock, seconds since the epoch
        self.last_byte = 0.0  # monotonic seconds; bytes that flow are a proof of life
        self.absence: Absence | None = None  # known where the router itself starts it
        self.draining = False  # an operator wants it to get no new requests
        self.turned_at = 0.0  # monotonic seconds; when that was said, or taken back
        self.etag = ""  # stands for its settings and `draining`; another one after each change
        self.removed = False

    def __repr__(self) -> str:
        return (
            f"<Backend {self.name} {self.engine} {self.health.state.value} "
            f"in_flight={self.in_flight}>"
        )

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.most

    def speaks(self, engine: str) -> None:
        """Take it for `engine`; the capacity that another one told is not this one's."""
        if engine != self.engine:
            self.told_capacity = self.engine_version = None
        self.engine = engine

    def size(
        self, *, default: int | None = None, told: int | None = None, seen: int | None = None
    ) -> None:
        """Work out the capacity again: the file's figure, the engine's, what was seen, a default.

        Args:
            default: that of its engine.
            told: what the engine says.
            seen: what traffic shows; 0 when that is not to count.
        """
        self.default_capacity = default or self.default_capacity
        self.told_capacity = told or self.told_capacity
        self.seen_capacity = self.seen_capacity if seen is None else seen
        given = self._given
        self.places.assume(given or 0)
        self.slots = given or self.seen_capacity or self.default_capacity
        self.capacity = self.slots * self.spec.weight

    @property
    def _given(self) -> int | None:
        """What the file says that it runs at once, else the engine."""
        return self.spec.max_concurrent_requests or self.told_capacity

    @property
    def has_free_place(self) -> bool:
        """Whether it is known that it runs one more than it has, from whomever."""
        others = self.scrape.others if self.scrape is not None else 0.0
        return self.open_for != inf and self.in_flight + others < round(self.places.runs)

    def unlearn(self) -> None:
        """Let go of what traffic showed: it may be another server by now."""
        self.places, self.waits, self.share = Places(), Waits(), 1.0
        self.speed = Speed(self.stats)
        self.size(seen=0)

    def cap(self, *, enforce: bool) -> None:
        """Settle how many requests it may get at once; call it when what it depends on changes."""
        if self.one_at_a_time:
            self.most = 1
        else:
            # Not what was learned: nobody would ever find out that it was too low.
            self.most = self._given or self.default_capacity if enforce else inf

    def reopen(self, now: float, *, learns: bool) -> None:
        """Settle how many requests it would begin at once; its own figures have to be fresh."""
        self.open_for = self.most
        if learns and self.scrape is not None and now < self.scrape_expires:
            left = self.places.open_for - self.scrape.others
            self.open_for = min(self.most, max(1.0, left))

    @property
    def is_up(self) -> bool:
        return self.health.state is State.UP

    def is_well(self, now: float) -> bool:
        """Whether one that is up may be chosen before all others."""
        return self.rest.is_over(now) and self.circuit.lets_through(now)

    def condition(self, now: float) -> str:
        """Return the one word that says best why it gets requests or not.

        One of the states of `Health`, or for one that is up: "drain", "open", "half-open" (its
        circuit) or "resting" (it said that it is busy).
        """
        if not self.is_up:
            return self.health.state.value
        if self.draining:
            return "drain"
        if not self.circuit.is_closed:
            return self.circuit.state(now).value
        return "up" if self.rest.is_over(now) else "resting"

    def since(self, condition: str) -> float:
        """Return when it came into its `condition`, in monotonic seconds."""
        if condition == "up":
            circuit, rest = self.circuit, self.rest
            return max(self.health.since, circuit.closed_at, self.turned_at, rest.until)
        if condition == "drain":
            return max(self.health.since, self.turned_at)
        if condition == "resting":
            return self.rest.since
        if condition == "open":
            return self.circuit.since
        return self.circuit.retry_at if condition == "half-open" else self.health.since

    def load(self, now: float) -> Load:
        """Return the load at `now` (monotonic seconds), leaving out a stale scrape."""
        scrape = self.scrape if now < self.scrape_expires else None
        return estimate(self.in_flight, self.capacity, scrape, self.share)

    def score(self, now: float) -> float:
        """Return `load(now).score`, without making the object: this runs with each lease."""
        scrape = self.scrape
        if scrape is None or now >= self.scrape_expires:
            return self.in_flight / (self.capacity * self.share)
        load = scrape.others + self.in_flight
        return (load - 0.5 * min(scrape.waiting, load)) / (self.capacity * self.share)

    def expected_wait(self, now: float) -> float:
        """Return the seconds until a request that comes now would begin to be answered."""
        places = self.places.runs if self.places.is_known else self.slots
        return self.waits.expected(self.kept_score * self.capacity * self.share, places, now)

    def rescore(self, now: float) -> None:
        """Work the kept score out again: something that it depends on has changed."""
        self.kept_score = self.score(now)

    def model_names(self) -> frozenset[str] | None:
        """Return the names under which clients find models here; None while unknown."""
        if self.spec.models:
            return frozenset(self.spec.models) | frozenset(self.spec.aliases)
        if self.cards is None:
            return None
        return frozenset(self.cards) | frozenset(self.spec.aliases)

    def own_name(self, model: str) -> str:
        """Return what the server itself calls `model`."""
        return self.spec.aliases.get(model, model)
