"""How long requests took at one backend, as of the last minute."""

from __future__ import annotations

from collections.abc import Mapping

from mvllm_router.histogram import Histogram, Recent

Quantiles = Mapping[str, float | None]  # p50 and p99 in seconds, None where nothing was counted


class Lately:
    """Looks back on some histograms, by name."""

    __slots__ = ("_are_asked_for", "_are_settled", "_found", "_found_of", "_histograms", "_recent")

    def __init__(self, notes: int, **histograms: Histogram) -> None:
        """Look back on the last so many `note`s."""
        self._histograms = tuple(histograms.values())
        self._recent = {name: Recent(one, notes) for name, one in histograms.items()}
        self._found: Mapping[str, Quantiles] = {}
        self._found_of: tuple[float, ...] = ()  # the sums of the histograms then
        self._are_settled = False  # what was found holds until the next note
        self._are_asked_for = False  # since the last note

    def __getitem__(self, name: str) -> Recent:
        return self._recent[name]

    def note(self) -> None:
        """Look back on this moment, too."""
        for recent in self._recent.values():
            recent.note()
        self._are_settled, self._found_of = False, ()
        if self._are_asked_for:
            self.quantiles()  # now, while the counts are at hand: it takes half of the time
            self._are_asked_for = False

    def quantiles(self) -> Mapping[str, Quantiles]:
        """Return those of each; it is the same object for as long as they are the same."""
        self._are_asked_for = True
        if not self._are_settled:
            sums = tuple([histogram.total for histogram in self._histograms])
            if sums != self._found_of:
                self._find()
                self._found_of = sums
        return self._found

    def _find(self) -> None:
        found = {name: recent.quantiles() for name, recent in self._recent.items()}
        if found != self._found:
            self._found = found
        self._are_settled = all(recent.is_settled for recent in self._recent.values())
