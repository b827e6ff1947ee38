"""One inference request inside a simulated engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from mvllm_router.sim.prefix_cache import Held
from mvllm_router.sim.text import Answer

Kind = Literal["chat", "completion", "embedding"]


@dataclass(eq=False)
class Job:
    """What a request asks for, and how far it has come.

    Attributes:
        request_id: the client's name for the request, or empty.
        model: the name in the answer.
        texts: the prompt, or the inputs of an embedding.
        prompt_tokens: tokens of all texts.
        max_tokens: tokens that the answer will have.
        finish: why it ends there.
        usage: whether a stream ends with a usage event.
        prefix: what all events of a stream begin with; made once, so that an event is cheap.
        made: tokens made so far.
        rank: the vLLM data-parallel engine it belongs to.
        running: whether it has a slot.
        due: when the next token may come, in the loop's time.
        interrupted: another request has cut it (llama-cpp-python).
        held: its blocks in the prefix cache of a vLLM.
        nudge: set while it is parked by `SimEngine.hold`; resolving it lets it go on.
    """

    kind: Kind
    id: str
    request_id: str
    model: str
    created: int
    texts: list[str]
    prompt_tokens: int
    max_tokens: int
    finish: Literal["length", "stop", "abort"]
    stream: bool
    usage: bool
    answer: Answer
    prefix: str = ""
    made: int = 0
    rank: int = 0
    running: bool = False
    due: float = 0.0
    interrupted: bool = False
    held: Held | None = field(default=None, repr=False)
    nudge: asyncio.Future[None] | None = field(default=None, repr=False)

    @property
    def left(self) -> int:
        """Tokens still to make."""
        return self.max_tokens - self.made

    def abort(self) -> None:
        """End here."""
        self.max_tokens = self.made
        self.finish = "abort"

    def text(self) -> str:
        """The answer so far, as it stands inside a JSON string."""
        return self.answer.escaped(0, self.made)
