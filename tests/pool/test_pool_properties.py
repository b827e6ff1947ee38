"""What holds of the pool, circuits and rests whatever happens, in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pool_kit import Clock
from pool_machine import STEPS, WHICH, PoolMachine

from mvllm_router.pool import Circuit, CircuitRules
from mvllm_router.pool.rest import Rest


class CircuitMachine(RuleBasedStateMachine):
    """One circuit, against a plain list of what was counted."""

    RULES = CircuitRules(threshold=3, window=8.0, longest_wait=4.0)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.circuit = Circuit(self.RULES, self.clock())
        self.running: list[tuple[float, bool]] = []  # when each began, and whether it is a trial
        self.failed_at: list[float] = []  # all that may count

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def begin(self) -> None:
        """Begin a request; while it is open that is the trial if one is due, or a last resort."""
        trial = not self.circuit.is_closed and self.circuit.lets_through(self.clock())
        if trial:
            self.circuit.begin_trial()
        self.running.append((self.clock(), trial))

    @precondition(lambda self: self.running)
    @rule(which=WHICH, how=st.sampled_from(("good", "bad", "nothing")))
    def end(self, which: int, how: str) -> None:
        began, trial = self.running.pop(which % len(self.running))
        circuit, now = self.circuit, self.clock()
        was_closed, before = circuit.is_closed, (circuit.retry_at, circuit.since)
        if how == "good":
            closed = circuit.succeeded(began, now)
            assert closed is (circuit.is_closed and not was_closed)
            assert not (closed and began <= before[1]), "it began before the opening"
        elif how == "bad":
            if was_closed and began >= circuit.since:
                self.failed_at.append(now)
            opened = circuit.failed("connection reset", began, now)
            assert opened is (was_closed and not circuit.is_closed)
            assert was_closed or began >= before[0] or circuit.retry_at == before[0]
            if opened:
                assert self._recent(self.RULES.window) >= self.RULES.threshold
        if trial:
            circuit.end_trial(began)
        if circuit.is_closed is not was_closed:
            self.failed_at.clear()

    @rule()
    def open(self) -> None:
        was_closed = self.circuit.is_closed
        assert self.circuit.open("it is shutting down", self.clock()) is was_closed
        assert not self.circuit.is_closed
        self.failed_at.clear()

    @rule()
    def reset(self) -> None:
        self.circuit.reset(self.clock())
        assert self.circuit.is_closed
        self.failed_at.clear()

    @invariant()
    def it_lets_one_try_at_a_time(self) -> None:
        trials = [began for began, trial in self.running if trial and began > self.circuit.since]
        assert len(trials) <= 1
        if not self.circuit.is_closed:
            assert self.circuit.trial == bool(trials)
            assert not (trials and self.circuit.lets_through(self.clock()))

    @invariant()
    def no_wait_is_longer_than_the_longest(self) -> None:
        assert self.circuit.retry_at - self.clock() <= self.RULES.longest_wait
        if not self.circuit.is_closed and not self.circuit.trial:
            assert self.circuit.lets_through(self.clock() + self.RULES.longest_wait)

    @invariant()
    def what_counts_is_between_half_a_window_and_a_window_old(self) -> None:
        if self.circuit.is_closed:
            counted = self.circuit.failures(self.clock())
            assert self._recent(self.RULES.window / 2) <= counted <= self._recent(self.RULES.window)

    def teardown(self) -> None:
        """Time and one answer are all that it takes to close it."""
        for began, trial in self.running:
            if trial:
                self.circuit.end_trial(began)
        self.clock.advance(self.RULES.longest_wait)
        assert self.circuit.lets_through(self.clock())
        if not self.circuit.is_closed:
            self.circuit.begin_trial()
            assert self.circuit.succeeded(self.clock(), self.clock())
        assert self.circuit.lets_through(self.clock())

    def _recent(self, seconds: float) -> int:
        return sum(self.clock() - at < seconds for at in self.failed_at)


@given(
    st.lists(
        st.tuples(
            STEPS,
            st.one_of(
                st.sampled_from(("answered", "end")),
                st.none(),
                st.floats(0, 1e9),
            ),
        )
    )
)
def test_a_rest_is_never_shorter_nor_longer_than_it_may_be(
    events: list[tuple[float, str | float | None]],
) -> None:
    rest, now = Rest(), 1000.0
    for seconds, event in events:
        now += seconds
        before = rest.until
        if event == "answered":
            rest.answered()
            assert rest.until == before
        elif event == "end":
            rest.end()
            assert rest.is_over(now)
        else:
            assert event is None or isinstance(event, float)
            rest.busy(now, event)
            assert rest.until >= before
            assert rest.until >= now + 0.25
            assert rest.until <= max(before, now + (8.0 if event is None else 60.0))
        assert rest.is_over(now + 60.0)
        assert rest.is_over(now) is (now >= rest.until)


TestPool = PoolMachine.TestCase
TestCircuit = CircuitMachine.TestCase
