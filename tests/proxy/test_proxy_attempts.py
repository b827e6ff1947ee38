"""Whether a request that got no answer is tried again: where, and after which pause."""

from __future__ import annotations

import pytest
from pool_kit import Clock, add_up, new_pool

from mvllm_router.pool import Backend
from mvllm_router.proxy.attempts import Attempts, Trouble
from mvllm_router.proxy.budget import RetryBudget

_POOL = new_pool()
A, B, C = (add_up(_POOL, name) for name in "abc")
BUSY, BROKEN, LATE = Trouble.BUSY, Trouble.BROKEN, Trouble.LATE
LEAVING, DIED = Trouble.LEAVING, Trouble.DIED


class Known:
    """The other backends: those that are well, and those that are a last resort."""

    def __init__(self, well: set[Backend], resorts: set[Backend]) -> None:
        self.well = well
        self.resorts = resorts

    def another(self, model: str | None, tried: list[Backend], *, well: bool) -> bool:
        assert model == "m"
        return bool((self.well if well else self.well | self.resorts) - set(tried))


class Purse(RetryBudget):
    """A budget that counts what was taken and may be empty."""

    def __init__(self, retries: float = 100) -> None:
        super().__init__(Clock())
        self._balance = retries
        self.taken = 0

    def take(self) -> bool:
        paid = self._balance >= 1 and super().take()
        self.taken += paid
        return paid


class Bench:
    """The attempts of one request for the model `m`."""

    def __init__(
        self,
        *,
        well: tuple[Backend, ...] = (A,),
        resorts: tuple[Backend, ...] = (),
        retries: float = 100,
        max_retries: int = 3,
        share: float = 0.5,
    ) -> None:
        self.known = Known(set(well), set(resorts))
        self.purse = Purse(retries)
        self.attempts = Attempts("m", self.known, self.purse, max_retries, lambda: share)

    def ask(self, backend: Backend, trouble: Trouble, asked: float | None = None) -> bool:
        """Make an attempt that meets `trouble`; return whether there is to be another."""
        before = self.purse.taken
        self.attempts.begin(backend)
        goes_on = self.attempts.may_go_on(trouble, asked)
        assert self.purse.taken - before == goes_on, "only what is done is paid"
        assert (self.attempts.again is None) == (self.attempts.pause == 0)
        return goes_on


# --- to another one


@pytest.mark.parametrize("trouble", Trouble)
def test_whatever_the_trouble_another_one_that_is_well_is_asked_at_once(trouble: Trouble) -> None:
    bench = Bench(well=(A, B))
    assert bench.ask(A, trouble)
    assert (bench.attempts.pause, bench.attempts.again) == (0, None)


@pytest.mark.parametrize(
    ("trouble", "goes_on"),
    [(BUSY, False), (BROKEN, True), (LATE, True), (LEAVING, True), (DIED, True)],
)
def test_a_last_resort_is_better_than_a_broken_one_but_not_than_a_busy_one(
    trouble: Trouble, goes_on: bool
) -> None:
    assert Bench(well=(A,), resorts=(B,)).ask(A, trouble) is goes_on


def test_each_one_is_asked_once() -> None:
    bench = Bench(well=(A, B, C), max_retries=9)
    assert [bench.ask(backend, BROKEN) for backend in (A, B, C)] == [True, True, False]
    assert bench.attempts.tried == [A, B, C]
    assert bench.attempts.count == 3


@pytest.mark.parametrize("max_retries", [0, 1, 2])
def test_there_are_no_more_attempts_than_allowed(max_retries: int) -> None:
    bench = Bench(well=(A, B, C), max_retries=max_retries)
    goes_on = [bench.ask(backend, LATE) for backend in (A, B, C)[: max_retries + 1]]
    assert goes_on == [True] * max_retries + [False]


@pytest.mark.parametrize("trouble", Trouble)
def test_nothing_goes_on_when_the_budget_is_empty(trouble: Trouble) -> None:
    assert not Bench(well=(A, B), retries=0.9).ask(A, trouble)
    assert not Bench(well=(A,), retries=0.9).ask(A, trouble)


def test_a_request_that_two_engines_died_of_gets_no_third_one() -> None:
    bench = Bench(well=(A, B, C))
    assert bench.ask(A, DIED)
    assert not bench.ask(B, DIED)


def test_other_troubles_do_not_count_as_deaths() -> None:
    bench = Bench(well=(A, B, C))
    assert bench.ask(A, BUSY)
    assert bench.ask(B, DIED)
    assert not bench.ask(C, DIED)


def test_a_death_and_then_another_trouble_goes_on() -> None:
    bench = Bench(well=(A, B, C))
    assert bench.ask(A, DIED)
    assert bench.ask(B, BUSY)


# --- to the same one


@pytest.mark.parametrize(
    ("trouble", "goes_on"),
    [(BUSY, True), (BROKEN, True), (LATE, False), (LEAVING, False), (DIED, False)],
)
def test_the_only_one_is_asked_again_where_that_may_help(trouble: Trouble, goes_on: bool) -> None:
    bench = Bench()
    assert bench.ask(A, trouble) is goes_on
    assert bench.attempts.again is (A if goes_on else None)


@pytest.mark.parametrize(
    ("share", "pauses"),
    [(0.0, [0.05, 0.1, 0.2, 0.4]), (0.5, [0.1, 0.2, 0.4, 0.8]), (0.999, [0.15, 0.3, 0.6, 1.2])],
)
def test_pauses_double_and_differ_from_request_to_request(
    share: float, pauses: list[float]
) -> None:
    bench = Bench(share=share, max_retries=4)
    seen = []
    while bench.ask(A, BROKEN):
        seen.append(round(bench.attempts.pause, 2))
    assert seen == pauses


def test_real_pauses_are_drawn_by_chance() -> None:
    pauses = set()
    for _ in range(20):
        attempts = Attempts("m", Known({A}, set()), Purse(), 3)
        attempts.begin(A)
        assert attempts.may_go_on(BUSY)
        pauses.add(attempts.pause)
    assert len(pauses) > 10
    assert all(0.05 <= pause < 0.15 for pause in pauses)


@pytest.mark.parametrize(
    ("asked", "pause"), [(None, 0.1), (0.0, 0.1), (0.01, 0.1), (1.0, 1.0), (5.0, 5.0)]
)
def test_the_only_one_is_left_alone_for_as_long_as_it_asks(
    asked: float | None, pause: float
) -> None:
    bench = Bench()
    assert bench.ask(A, BUSY, asked)
    assert bench.attempts.pause == pause


@pytest.mark.parametrize("asked", [5.1, 60.0, 1e9])
def test_the_client_is_told_where_it_asks_for_longer(asked: float) -> None:
    bench = Bench()
    assert not bench.ask(A, BUSY, asked)
    assert bench.attempts.again is None


def test_a_pause_is_over_when_the_next_attempt_begins() -> None:
    bench = Bench()
    assert bench.ask(A, BUSY)
    bench.attempts.begin(A)
    assert (bench.attempts.pause, bench.attempts.again) == (0.0, None)
    assert (bench.attempts.count, bench.attempts.tried) == (2, [A])


def test_no_pause_is_longer_than_the_longest_however_often_it_is_asked() -> None:
    bench = Bench(max_retries=100)
    pauses = []
    while bench.ask(A, BROKEN):
        pauses.append(bench.attempts.pause)
    assert 3 <= max(pauses) <= 5
    assert len(pauses) < 10


@pytest.mark.parametrize("trouble", [BUSY, BROKEN])
def test_none_is_asked_twice_once_there_was_another(trouble: Trouble) -> None:
    bench = Bench(well=(A, B))
    assert bench.ask(A, trouble)
    assert not bench.ask(B, trouble)


def test_a_busy_one_is_not_asked_again_while_there_is_a_last_resort() -> None:
    """Its answer goes to the client: a server that is not well would hardly do better."""
    assert not Bench(well=(A,), resorts=(B,)).ask(A, BUSY)


def test_an_only_one_that_gets_company_is_left_for_it() -> None:
    bench = Bench()
    assert bench.ask(A, BROKEN)
    assert bench.attempts.again is A
    bench.known.well.add(B)
    assert bench.ask(A, BROKEN)
    assert (bench.attempts.again, bench.attempts.pause) == (None, 0.0)
