"""What a policy is: it picks one of the candidates for a request, and says why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mvllm_router.policies.kv_index import Prompt
from mvllm_router.pool import Backend


class Wish(Protocol):
    """What a policy may know of the request that it finds a backend for."""

    @property
    def model(self) -> str | None:
        """The model that it names, if it does."""

    @property
    def body(self) -> bytes:
        """Its whole body."""

    @property
    def prompt(self) -> Prompt | None:
        """The tokens of its prompt, if the policy `needs_tokens` and they could be had in time."""

    def header(self, name: str) -> str:
        """Return the value of a header by its name in small letters; "" where it has none."""


@dataclass(frozen=True, slots=True)
class Supposed:
    """A wish without a request: what somebody asks about. Names of headers are in small letters."""

    model: str | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    prompt: Prompt | None = None

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


# The backend, and a phrase that says why; one of few, for a header of each answer.
Choice = tuple[Backend, str]


# Of more candidates, so many drawn at random stand for all: the best of them is as good as the best
# of all but for a hair, and to look at hundreds takes longer than a request.
_MANY, _SAMPLE = 64, 32


def sample(candidates: Sequence[Backend], random_share: Callable[[], float]) -> Sequence[Backend]:
    """Return the candidates, or some of very many."""
    count = len(candidates)
    if count <= _MANY:
        return candidates
    begin, step = int(random_share() * count), count // _SAMPLE
    return [candidates[(begin + n * step) % count] for n in range(_SAMPLE)]


class Policy(ABC):
    """Picks a backend. Plain and synchronous: it runs once for every attempt."""

    # What it goes by, in a phrase.
    why = ""
    # Whether those with the same score are equal to it.
    by_score = False

    def needs_tokens(self, candidates: Sequence[Backend]) -> bool:
        """Tell whether it chooses by the tokens of a prompt: a server is asked for them before."""
        return False

    @abstractmethod
    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        """Return one of `candidates` (never empty), which then gets the request, and why.

        Args:
            candidates: backends that can take it; what is not among them must not be returned.
            wish: the request.
            now: monotonic seconds.
        """

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice | None:
        """Return what `choose` would, and change nothing; None where chance decides."""
        return None

    def forget(self, backend: Backend) -> None:  # noqa: B027 - few keep anything
        """Let go of what is kept about a backend that was removed."""
