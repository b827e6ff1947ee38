"""What came of a run: every outcome counted by what was wrong meanwhile. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaos_answers import Seen
from chaos_judge import Story, World, violation

CALM = "nothing"
_WORST = 3  # troubles that cost most are shown
_SHOWN = 8  # violations with their stories
_SAVED = "complete, not at the first server"
_OUTCOMES = (
    Seen.COMPLETE.value,
    _SAVED,
    Seen.REFUSED.value,
    Seen.BROKEN.value,
    Seen.CUT.value,
    Seen.LEFT.value,
    "violation",
)
_HEADS = ("complete", "saved", "refused", "broken", "cut", "left", "violation")


@dataclass
class Report:
    """Outcomes by kind of trouble, violations with their stories, and what was left at the end."""

    requests: int = 0
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # by the trouble that it was lost to
    totals: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)  # by status and code
    violations: list[dict[str, Any]] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.violations and not self.left_over

    def add(self, story: Story, world: World) -> None:
        """Judge a story and count it once for each kind of trouble that it may have met."""
        wrong = violation(story, world)
        outcome = "violation" if wrong else _outcome(story)
        self.requests += 1
        self.totals[outcome] += 1
        if story.reading.seen is Seen.REFUSED:
            self.refusals[f"{story.status} {story.reading.code}"] += 1
        for kind in _met(story, world) or {CALM}:
            self.table[kind, outcome] += 1
        if story.reading.seen in (Seen.REFUSED, Seen.BROKEN, Seen.CUT):
            self.lost.update(_blamed(story, world))
        if wrong:
            self.violations.append({"what": wrong, **_told(story, world)})

    def document(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        kinds = sorted({kind for kind, _ in self.table})
        return {
            "requests": self.requests,
            "totals": dict(self.totals),
            "refusals": dict(self.refusals),
            "lost": dict(self.lost),
            "table": {k: {o: self.table[k, o] for o in _OUTCOMES} for k in kinds},
            "violations": self.violations,
            "left_over": self.left_over,
            "figures": self.figures,
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        if self.table:
            yield _row("meanwhile", _HEADS)
        for kind in sorted({kind for kind, _ in self.table}, key=lambda k: (k != CALM, k)):
            yield _row(kind, [str(self.table[kind, outcome] or "·") for outcome in _OUTCOMES])
        if self.table:
            yield _row("each once", [str(self.totals[outcome] or "·") for outcome in _OUTCOMES])
        for name, count in sorted(self.refusals.items()):
            yield f"refused: {count} x {name}"
        for name, count in self.lost.most_common(_WORST):
            yield f"lost: {count} to {name}"
        for name, value in self.figures.items():
            yield f"{name}: {value}"
        for one in self.violations[:_SHOWN]:
            yield "VIOLATION " + " ".join(f"{word}={value}" for word, value in one.items())
        if len(self.violations) > _SHOWN:
            yield f"{len(self.violations)} violations in all; --json FILE has them"
        for what in self.left_over:
            yield f"LEFT OVER {what}"


def _row(name: str, cells: list[str] | tuple[str, ...]) -> str:
    return f"{name:15}" + "".join(f"{cell:>10}" for cell in cells)


def _outcome(story: Story) -> str:
    saved = story.reading.seen is Seen.COMPLETE and story.attempts > 1
    return _SAVED if saved else story.reading.seen.value


def _met(story: Story, world: World) -> set[str]:
    """Return the kinds of trouble at the engines where the request was, or may have been."""
    having = [name for name, models in world.models.items() if story.wish.model in models]
    engines = [story.backend] if story.backend and story.attempts == 1 else having
    return set().union(*(world.active(name, story.begin, story.end) for name in engines))


def _blamed(story: Story, world: World) -> list[str]:
    """Return the troubles of the engine whose answer was an error or broke off."""
    return [
        f"{one.engine} {one.kind} at {one.begin:.1f}"
        for one in world.troubles
        if one.engine == story.backend and one.overlaps(story.begin, story.end, 0)
    ]


def _told(story: Story, world: World) -> dict[str, Any]:
    """Return a story as it helps to find out what happened."""
    wish = story.wish
    meanwhile = sorted(
        f"{one.engine} {one.kind}"
        for one in world.troubles
        if one.overlaps(story.begin, story.end, 1.0)
    )
    return {
        "request": f"chaos-{wish.number}",
        "asked": f"{wish.model} {'stream' if wish.stream else 'whole'} of {wish.tokens} tokens",
        "at": round(story.begin, 3),
        "seconds": round(story.end - story.begin, 3),
        "status": story.status,
        "backend": story.backend,
        "attempts": story.attempts,
        "failed": world.failed.get(wish.number, []),
        "meanwhile": meanwhile,
    }
