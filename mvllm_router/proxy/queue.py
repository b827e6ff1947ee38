"""Who waits for room, in which order: plain decisions, no event loop."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

from mvllm_router.policies import Wish
from mvllm_router.pool import Backend

T = TypeVar("T")

# Requests of one kind can be served by the same backends.
Kind = tuple["str | None", frozenset[Backend]]

_rank = attrgetter("rank")


class Claim(NamedTuple):
    """For whom a request waits, and how early it wants its turn: lower is earlier.

    `key` is the name of the API key, "" for none. `asked` is what the request says of itself; it
    counts among those of its key. `rank` is what counts among keys.
    """

    key: str = ""
    asked: int = 0
    rank: int = 0

    @classmethod
    def of(cls, key: str, base: int, asked: int) -> Claim:
        """Return the claim of a request with a key whose own priority is `base`.

        A request may put itself behind others; in front of others it puts nobody but those of
        its own key, or everybody would ask for that.
        """
        return cls(key, asked, base + max(0, asked))


ORDINARY = Claim()
# What is told of ranks: clients may make up any number.
RANKS = ("high", "normal", "low")


class Waiting(NamedTuple):
    """How many wait: all of them, by the names of their keys, and by how they rank among keys.

    `by_rank` has all of RANKS; "normal" is rank 0.
    """

    all: int
    by_key: Mapping[str, int]
    by_rank: Mapping[str, int]


class Ticket(Generic[T]):
    """One request that waits: what it wishes, where it has been, and how to tell it.

    The rest is the queue's: `number` is its place in the order of arrival, 0 for one that does not
    wait; `joined` is when it came, `due` when it would have come had it asked for priority 0, and
    `step` what one step of priority counts for, all in seconds.
    """

    __slots__ = ("claim", "due", "joined", "kind", "number", "step", "tell", "wish")

    def __init__(
        self, wish: Wish, tried: Iterable[Backend], tell: T, claim: Claim = ORDINARY
    ) -> None:
        self.wish = wish
        self.kind: Kind = (wish.model, frozenset(tried))
        self.tell = tell
        self.claim = claim
        self.number = 0
        self.joined = self.due = self.step = 0.0

    @property
    def model(self) -> str | None:
        return self.kind[0]

    @property
    def tried(self) -> frozenset[Backend]:
        return self.kind[1]

    def has_caught_up(self, best: int, now: float) -> bool:
        """Tell whether it has waited for long enough, if it had to, to rank like those of `best`.

        It never ranks better: or a key with many that wait for long would not let others in.
        """
        rank = self.claim.rank
        return rank <= best or now - self.joined >= (rank - best) * self.step


class _Lane(Generic[T]):
    """Those of one kind with one key: who is `due` first stands at the head.

    `turn` is when the lane was last served, or began; `rank` is that of its head.
    """

    __slots__ = ("_entries", "head", "rank", "turn")

    def __init__(self, first: Ticket[T]) -> None:
        # Sorted. To move thousands of pointers up costs less than a heap's bookkeeping of those
        # that leave from the middle.
        self._entries = [(first.due, first.number, first)]
        self.head = first
        self.rank = first.claim.rank
        self.turn = first.number

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Ticket[T]]:
        return (ticket for _, _, ticket in self._entries)

    @property
    def last(self) -> Ticket[T]:
        return self._entries[-1][2]

    def add(self, ticket: Ticket[T]) -> None:
        insort(self._entries, (ticket.due, ticket.number, ticket))
        self._look()

    def remove(self, ticket: Ticket[T]) -> None:
        """Take out one of several."""
        del self._entries[bisect_left(self._entries, (ticket.due, ticket.number))]
        self._look()

    def _look(self) -> None:
        self.head = self._entries[0][2]
        self.rank = self.head.claim.rank


class Queue(Generic[T]):
    """Keys take turns; the order within a key is that of arrival, moved by priorities.

    One step of priority counts as much as some seconds of waiting. So within a key, a request that
    asks for priority 3 is served as if it had come three steps later. Among keys, one that ranks
    behind others is passed over until it has waited for as many steps; from then on it takes its
    turn with them. Kinds do not hold each other up.

    Joining and leaving cost about the same however many wait; finding who is first costs at most a
    look at each key that waits. Nothing is kept of a key that does not wait.
    """

    __slots__ = ("_kinds", "_moves", "_ranks", "_waiting", "count")

    def __init__(self) -> None:
        # Of each kind the lanes by their keys, in the order of their turns.
        self._kinds: dict[Kind, OrderedDict[str, _Lane[T]]] = {}
        self._waiting: dict[str, int] = {}  # how many, by key
        self._ranks = dict.fromkeys(RANKS, 0)  # how many
        self._moves = 0  # all that ever joined or were served
        self.count = 0

    def join(self, ticket: Ticket[T], now: float, step: float) -> None:
        """Put `ticket` behind those that are before it.

        Args:
            now: the time, in seconds.
            step: how many seconds of waiting one step of priority counts for.
        """
        key = ticket.claim.key
        self._moves += 1
        ticket.number = self._moves
        ticket.joined = now
        ticket.step = step
        ticket.due = now + ticket.claim.asked * step
        lanes = self._kinds.setdefault(ticket.kind, OrderedDict())
        if key in lanes:
            lanes[key].add(ticket)
        else:
            lanes[key] = _Lane(ticket)
        self._waiting[key] = self._waiting.get(key, 0) + 1
        self._ranks[_rank_name(ticket)] += 1
        self.count += 1

    def leave(self, ticket: Ticket[T]) -> bool:
        """Take out `ticket`, which gave up; return whether it was still in."""
        if not ticket.number:
            return False
        key = ticket.claim.key
        lanes = self._kinds[ticket.kind]
        if len(lanes[key]) > 1:
            lanes[key].remove(ticket)
        elif len(lanes) > 1:
            del lanes[key]
        else:
            del self._kinds[ticket.kind]
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
        self._ranks[_rank_name(ticket)] -= 1
        ticket.number = 0
        self.count -= 1
        return True

    def serve(self, ticket: Ticket[T]) -> None:
        """Take out `ticket`, which gets a place: the other keys have their turns before its own."""
        key = ticket.claim.key
        lanes = self._kinds[ticket.kind]
        self._moves += 1
        lanes[key].turn = self._moves
        lanes.move_to_end(key)
        self.leave(ticket)

    def waiting(self) -> Waiting:
        """Return how many wait now."""
        return Waiting(self.count, dict(self._waiting), dict(self._ranks))

    def first_of_each_kind(self, now: float) -> list[Ticket[T]]:
        """Return who would be served next, of each kind, in the order in which they would be."""
        if len(self._waiting) < 2:  # nobody to take turns with
            heads = [lane.head for lanes in self._kinds.values() for lane in lanes.values()]
            return sorted(heads, key=_due) if len(heads) > 1 else heads
        every = self._kinds.values()
        bests = [min(map(_rank, lanes.values())) for lanes in every]
        firsts = [_first(lanes, best, now) for lanes, best in zip(every, bests, strict=True)]
        if len(firsts) > 1:
            best = min(bests)
            firsts.sort(key=lambda lane: (_rank_now(lane.head, best, now), lane.turn))
        return [lane.head for lane in firsts]

    def gives_way_to(self, claim: Claim, now: float, step: float) -> Ticket[T] | None:
        """Return who is to leave a full queue for somebody with `claim`, who comes now.

        Of those that rank worst it is the last one with the key that has the most of them waiting.
        None if that would be the newcomer.
        """

        def place(ticket: Ticket[T]) -> tuple[int, int, bool, float]:
            key, rank = ticket.claim.key, _rank_now(ticket, claim.rank, now)
            own = key == claim.key
            return rank, self._waiting[key] + own, own, ticket.due

        lanes = [lane for lanes in self._kinds.values() for lane in lanes.values()]
        worst = max((lane.last for lane in lanes), key=place, default=None)
        own = self._waiting.get(claim.key, 0) + 1
        newcomer = (claim.rank, own, True, now + claim.asked * step)
        return worst if worst is not None and place(worst) > newcomer else None

    def drain(self) -> list[Ticket[T]]:
        """Take all out, in the order of arrival."""
        lanes = [lane for lanes in self._kinds.values() for lane in lanes.values()]
        every = sorted((one for lane in lanes for one in lane), key=lambda ticket: ticket.number)
        for ticket in every:
            ticket.number = 0
        self._kinds.clear()
        self._waiting.clear()
        self._ranks = dict.fromkeys(RANKS, 0)
        self.count = 0
        return every


def _rank_name(ticket: Ticket[T]) -> str:
    rank = ticket.claim.rank
    return "high" if rank < 0 else "low" if rank else "normal"


def _due(ticket: Ticket[T]) -> tuple[float, int]:
    return ticket.due, ticket.number


def _first(lanes: OrderedDict[str, _Lane[T]], best: int, now: float) -> _Lane[T]:
    return next(lane for lane in lanes.values() if lane.head.has_caught_up(best, now))


def _rank_now(ticket: Ticket[T], best: int, now: float) -> int:
    """Return the rank of `ticket` beside one of the rank `best`, with what waiting has gained."""
    rank = ticket.claim.rank
    return best if rank > best and ticket.has_caught_up(best, now) else rank
