"""What will go wrong in a run, drawn from a seed before it begins. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One way in which things go wrong, and what a client may see of it.

    Attributes:
        fault: the fault of the simulated engine, "" where a process or the router is the target.
        breaks: may end an answer that has begun.
        silent: may leave a request without a word, which ends in a 504.
        fails: may answer with a 500, which is passed on.
        settle: seconds after its end until the router can be expected to use the engine again.
        often: its share among all kinds.
    """

    name: str
    fault: str = ""
    breaks: bool = False
    silent: bool = False
    fails: bool = False
    settle: float = 1.5
    often: int = 2


_KINDS = (
    Kind("kill", breaks=True, often=4),
    Kind("pause", breaks=True, silent=True, often=3),
    Kind("flap", often=3),
    Kind("hang", "hang", silent=True),
    Kind("slow", "slow", silent=True),
    Kind("reset", "reset"),
    Kind("garbage", "garbage"),
    Kind("drop", "drop", breaks=True),
    Kind("stall", "stall", breaks=True, silent=True),
    Kind("death", "engine_death", breaks=True, fails=True),
    Kind("abort", "abort", breaks=True, fails=True),
    Kind("error_500", "error_500", fails=True),
    Kind("draining_500", "draining_500", fails=True),
    Kind("busy_503", "busy_503"),
    Kind("rate_429", "rate_429"),
    Kind("busy_in_stream", "busy_in_stream"),
    # These two are done to the router. A change of its file is live within 2 s.
    Kind("reload", settle=3.0, often=0),
    Kind("drain", often=3),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}

# An engine process that was killed needs this long to listen again, in seconds.
RESTART = 1.5
# Seconds at the beginning in which nothing goes wrong: what is there then is compared with
# what is there at the end.
WARM_UP = 3.0
_LONGEST = 4.0
_SECONDS_BETWEEN_REWRITES = 0.2


@dataclass(frozen=True)
class Incident:
    """Something that is wrong with one engine for a time. Seconds from the run's beginning."""

    kind: str
    engine: int
    begin: float
    end: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def overlaps(self, begin: float, end: float) -> bool:
        return self.begin < end and begin < self.end

    def __str__(self) -> str:
        details = " ".join(f"{word}={value}" for word, value in self.details.items())
        return (
            f"{self.begin:6.1f} - {self.end:5.1f} s  s{self.engine} {self.kind} {details}".rstrip()
        )


@dataclass(frozen=True)
class Rewrite:
    """One new content of the router's file. `broken`: it is no TOML."""

    at: float
    weights: Mapping[int, float]  # of the engines that it names
    broken: bool
    in_place: bool  # written over the old content, so that a half of it can be seen


@dataclass(frozen=True)
class Schedule:
    """All that will go wrong."""

    seed: int
    seconds: float
    incidents: tuple[Incident, ...]
    rewrites: tuple[Rewrite, ...]
    hangups: tuple[float, ...]  # when the router gets SIGHUP

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}, {self.seconds:g} s"
        for incident in self.incidents:
            yield str(incident)
        yield f"{len(self.rewrites)} rewrites of the file; SIGHUP at " + ", ".join(
            f"{at:.1f} s" for at in self.hangups
        )


def draw(seed: int, seconds: float, models: Sequence[Sequence[str]]) -> Schedule:
    """Return a schedule; the same arguments give the same.

    Most of the time some engine of each model is left in peace: only then is an error the
    router's fault.

    Args:
        models: of each engine, the models that it has.
    """
    dice = Random(seed)
    incidents: list[Incident] = []
    for begin, end in _storms(dice, seconds):
        incidents += _removed(dice, begin, end, models)
    storms = sorted({(one.begin, one.end) for one in incidents})
    rewrites = [one for storm in storms for one in _storm(dice, *storm, incidents, len(models))]
    _fill(dice, seconds, models, incidents)
    hangups = sorted(dice.uniform(WARM_UP, seconds) for _ in range(1 + int(seconds / 15)))
    incidents.sort(key=lambda one: (one.begin, one.engine))
    return Schedule(seed, seconds, tuple(incidents), tuple(rewrites), tuple(hangups))


# --- incidents of engines


def _fill(
    dice: Random, seconds: float, models: Sequence[Sequence[str]], incidents: list[Incident]
) -> None:
    free_from = [WARM_UP] * len(models)  # an engine has one trouble at a time
    at = WARM_UP
    while at < seconds - 1:
        engine = dice.randrange(len(models))
        incident = _incident(dice, engine, max(at, free_from[engine]), seconds)
        reckless = dice.random() < 0.08
        if incident is not None and (reckless or spares_one(incident, incidents, models)):
            incidents.append(incident)
            # Time for the router to find out, so that incidents do not melt into one.
            free_from[engine] = incident.end + KINDS[incident.kind].settle + dice.uniform(0, 2)
        at += dice.expovariate(len(models) / 3.0)


def _incident(dice: Random, engine: int, begin: float, seconds: float) -> Incident | None:
    (kind,) = dice.choices(_KINDS, [kind.often for kind in _KINDS])
    end = begin + dice.uniform(0.5, _LONGEST)
    details = _details(dice, kind)
    return Incident(kind.name, engine, begin, end, details) if end <= seconds else None


def _details(dice: Random, kind: Kind) -> dict[str, Any]:
    if not kind.fault:
        return {}
    found: dict[str, Any] = {}
    if dice.random() < 0.3:
        found["times"] = dice.randint(1, 6)
    if kind.breaks:
        # What is aborted before it has said anything says so as vLLM does, and nobody else.
        found["after_events"] = dice.randint(1 if kind.name == "abort" else 0, 12)
    elif kind.name in ("hang", "reset", "error_500", "garbage") and dice.random() < 0.4:
        found["everywhere"] = True  # health checks and metrics as well
    if kind.name == "slow":
        found["seconds"] = round(dice.choice((0.3, 1.0, 5.0)), 1)
    return found


def spares_one(
    new: Incident, incidents: Sequence[Incident], models: Sequence[Sequence[str]]
) -> bool:
    """Tell whether each model keeps an engine that is well all through the new incident."""
    begin = new.begin - _LONGEST
    end = new.end + KINDS[new.kind].settle + RESTART
    hit = {one.engine for one in incidents if one.overlaps(begin, end)} | {new.engine}
    well = [names for engine, names in enumerate(models) if engine not in hit]
    return {name for names in models for name in names} <= {
        name for names in well for name in names
    }


# --- storms of reloads


def _storms(dice: Random, seconds: float) -> Iterator[tuple[float, float]]:
    at = WARM_UP + dice.uniform(0, 5)
    while at + 3 < seconds:
        end = at + dice.uniform(1.0, 3.0)
        yield at, end
        at = end + dice.uniform(5.0, 20.0)


def _removed(
    dice: Random, begin: float, end: float, models: Sequence[Sequence[str]]
) -> list[Incident]:
    """Choose engines that leave the file now and then; each model keeps one that does not."""
    chosen: list[Incident] = []
    for engine in dice.sample(range(len(models)), len(models) // 2):
        incident = Incident("reload", engine, begin, end)
        if spares_one(incident, chosen, models):
            chosen.append(incident)
    return chosen


def _storm(
    dice: Random, begin: float, end: float, incidents: Sequence[Incident], engines: int
) -> Iterator[Rewrite]:
    leaving = {one.engine for one in incidents if (one.begin, one.end) == (begin, end)}
    at = begin
    while at < end - _SECONDS_BETWEEN_REWRITES:
        there = [e for e in range(engines) if e not in leaving or dice.random() < 0.5]
        weights = {engine: dice.choice((0.5, 1.0, 2.0)) for engine in there}
        yield Rewrite(at, weights, dice.random() < 0.2, dice.random() < 0.5)
        at += _SECONDS_BETWEEN_REWRITES
    yield Rewrite(end, dict.fromkeys(range(engines), 1.0), False, False)
