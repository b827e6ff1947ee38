"""Says which requests could have been saved and were not. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chaos_answers import Reading, Seen
from chaos_schedule import KINDS, Kind
from chaos_wishes import Wish

# A vLLM that stops, and one whose engine has died, say so with a 500.
# Kinds of trouble after which an engine ends its stream as if all were well.
_SAYS_DONE = ("death", "abort")
_ENGINE_ENDED = ("after shutdown", "EngineCore encountered an issue")
_AFTER_STALL = 2.0  # seconds
_BEFORE = 0.3  # seconds by which the beginning of a trouble may be noted too late


@dataclass
class Trouble:
    """Something that was wrong with an engine. Monotonic seconds; None: it still is."""

    kind: str
    engine: str
    begin: float
    end: float | None = None

    def overlaps(self, begin: float, end: float, settle: float) -> bool:
        return self.begin - _BEFORE < end and (self.end is None or begin < self.end + settle)


@dataclass(frozen=True)
class Story:
    """One request and what became of it. Monotonic seconds.

    Attributes:
        status: of the answer, 0 where there was none.
        backend: name of the engine that answered, "" where the router did.
        attempts: engines that were asked.
        others: requests under way when it ended, itself not counted.
    """

    wish: Wish
    begin: float
    end: float
    reading: Reading
    status: int = 0
    backend: str = ""
    attempts: int = 0
    others: int = 0


@dataclass
class World:
    """What a judge knows beside the story.

    Attributes:
        models: by engine, the models that it has.
        max_queue: requests that may wait in the router; None: it does not limit them.
        failed: by number of the request, the engines that failed it and why, from the log.
        stopping_from: when the router was told to stop.
        stalls: when the machine itself stood still, from and to.
    """

    models: Mapping[str, Sequence[str]]
    max_queue: int | None = None
    queue_timeout: float = 0.0
    troubles: list[Trouble] = field(default_factory=list)
    failed: Mapping[int, Sequence[tuple[str, str]]] = field(default_factory=dict)
    stopping_from: float | None = None
    stalls: list[tuple[float, float]] = field(default_factory=list)

    def met(self, engine: str, begin: float, end: float) -> Iterator[Kind]:
        """Yield what was wrong with an engine, or just had been, between two moments."""
        for trouble in self.troubles:
            kind = KINDS[trouble.kind]
            if trouble.engine == engine and trouble.overlaps(begin, end, kind.settle):
                yield kind

    def well(self, model: str, begin: float, end: float) -> list[str]:
        """Return the engines that have a model and had no trouble between two moments."""
        return [
            name
            for name, models in self.models.items()
            if model in models and not any(self.met(name, begin, end))
        ]

    def active(self, engine: str, begin: float, end: float) -> set[str]:
        """Return the kinds of trouble that an engine had between two moments."""
        return {
            trouble.kind
            for trouble in self.troubles
            if trouble.engine == engine and trouble.overlaps(begin, end, 0)
        }


def violation(story: Story, world: World) -> str:
    """Return what the router did wrong, "" for nothing."""
    reading = story.reading
    if reading.seen is Seen.WRONG:
        return "" if _came_to_a_closed_door(story, world) else reading.detail
    if reading.seen in (Seen.COMPLETE, Seen.LEFT):
        return ""
    if _was_stopped(story, world) or _was_starved(story, world):
        return ""
    if reading.seen is Seen.REFUSED:
        return _refused(story, world)
    if reading.first and _says_that_another_may_do(story):
        return _lost(story, world)
    return _broken(story, world)


def _came_to_a_closed_door(story: Story, world: World) -> bool:
    """Tell whether a client was on its way in when the stopping router ceased to listen."""
    return story.status == 0 and _was_stopped(story, world)


def _was_stopped(story: Story, world: World) -> bool:
    return world.stopping_from is not None and story.end > world.stopping_from


def _was_starved(story: Story, world: World) -> bool:
    """Tell whether nobody ran for a while: then servers seem silent, and checks fail."""
    return any(
        begin < story.end and story.begin < end + _AFTER_STALL for begin, end in world.stalls
    )


def _says_that_another_may_do(story: Story) -> bool:
    """Tell whether an engine's error leaves hope that the request would go well elsewhere."""
    if any(mark in story.reading.detail for mark in _ENGINE_ENDED):
        # Two engines that died of one request are enough.
        return story.attempts < 2 or _ENGINE_ENDED[0] in story.reading.detail
    return story.reading.code in ("429", "502", "503")


def _broken(story: Story, world: World) -> str:
    """Judge an answer that broke off, and says so."""
    if story.reading.seen is Seen.CUT and story.wish.stream:
        return "a stream was cut without an error event"
    kinds = list(world.met(story.backend, story.begin, story.end))
    if not any(kind.breaks for kind in kinds):
        return f"{story.backend} was well, and its answer broke off: {story.reading.detail}"
    if story.reading.done_after_error and not any(kind.name in _SAYS_DONE for kind in kinds):
        return "an error of the router's own ends with [DONE]"
    return ""


def _refused(story: Story, world: World) -> str:
    """Judge an error before the first byte."""
    reading, status = story.reading, story.status
    if status == 504:
        return _silence(story, world)
    if status == 429 and reading.code == "overloaded":
        return _overload(story, world)
    if status in (429, 502, 503) or (status == 500 and _says_that_another_may_do(story)):
        return _lost(story, world)
    kinds = world.met(story.backend, story.begin, story.end)
    if status == 500 and story.backend and any(kind.fails for kind in kinds):
        return ""
    return f"{status} of {story.backend or 'the router'}: {reading.detail}"


def _lost(story: Story, world: World) -> str:
    """An error that another engine could have prevented is the router's fault."""
    well = world.well(story.wish.model, story.begin, story.end)
    detail = f"{story.status} {story.reading.code} {story.reading.detail}"
    return f"{', '.join(well)} was well, and yet: {detail}" if well else ""


def _silence(story: Story, world: World) -> str:
    """A 504 is right only where the engine that had the request was silent."""
    failed = world.failed.get(story.wish.number)
    if failed is None:
        return f"504, and the log does not say where: {story.reading.detail}"
    name, reason = failed[-1]
    if any(kind.silent for kind in world.met(name, story.begin, story.end)):
        return ""
    return f"504 though {name} was not silent: {reason}"


def _overload(story: Story, world: World) -> str:
    """The router's own 429 is right only where its queue was full, or the wait too long."""
    if world.max_queue is None:
        return f"429 of a router without limits: {story.reading.detail}"
    if story.end - story.begin >= world.queue_timeout or story.others >= world.max_queue:
        return ""
    return f"429 with {story.others} requests under way: {story.reading.detail}"
