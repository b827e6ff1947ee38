"""Load first, and among servers that have room, one that a request belongs to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mvllm_router.policies.base import sample
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.pool import Backend

# A server with a lower score has room, whoever belongs there.
_HAS_ROOM = 0.5
# One that is fuller may be so much fuller than the best.
_MARGIN = 0.1


class Affinity(LeastLoad):
    """What policies have in common that keep requests where earlier ones were.

    A request stays while the server's score is under 0.5, or hardly above the best, or while it is
    known to have a free place. Otherwise load decides. So a session or a prompt that everybody uses
    makes no server hot.
    """

    by_score = False

    def stay(self, homes: Collection[Backend], candidates: Sequence[Backend]) -> Backend | None:
        """Return the one of `homes` with the lowest score, if a request may stay there."""
        best: Backend | None = None
        for home in homes:
            if (best is None or home.kept_score < best.kept_score) and home in candidates:
                best = home
        if best is None or best.kept_score < _HAS_ROOM or best.has_free_place:
            return best
        some = sample(candidates, self._random)
        lowest = min([backend.kept_score for backend in some])
        return best if best.kept_score <= lowest + _MARGIN else None
