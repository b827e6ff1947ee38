"""What a simulated engine counts, and the views of it that its metrics show."""

from __future__ import annotations

import time
from collections import Counter

from mvllm_router.sim.job import Job
from mvllm_router.sim.prefix_cache import BLOCK, PrefixCache
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.slots import Slots


class State:
    """Everything that pages such as /metrics and /slots are made from.

    Totals count from the start of the engine object, as `created` (Unix seconds) says.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.slots = Slots(profile.running_limit)
        self.jobs: list[Job] = []
        self.created = time.time()
        self.loading = False
        self.speed = 1.0  # 0.5 is half as fast as the profile says
        self._caches = [PrefixCache(profile.kv_size // BLOCK) for _ in range(profile.engines)]
        self.prompt_tokens = Counter[int]()  # by rank, as the next three
        self.found_tokens = Counter[int]()  # of prompts, in the prefix cache of a vLLM
        self.generated_tokens = Counter[int]()
        self.finished = Counter[tuple[int, str]]()  # by rank and finish reason
        self.rejected = 0
        self.steps = 0
        self.step_tokens = 0
        self.longest = 0
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self.predicted_tokens = Counter[int]()  # by rank, of finished requests only

    @property
    def used(self) -> bool:
        """Whether any request has had a slot yet."""
        return bool(self.prompt_tokens)

    def running(self, rank: int) -> int:
        """Requests of one rank that have a slot."""
        return sum(job.running for job in self.jobs if job.rank == rank)

    def waiting(self, rank: int) -> int:
        """Requests of one rank that have none yet."""
        return sum(not job.running for job in self.jobs if job.rank == rank)

    def kv_usage(self, rank: int) -> float:
        """Share of the KV cache of one rank that is in use, 0 to 1."""
        tokens = sum(j.prompt_tokens + j.made for j in self.jobs if j.rank == rank and j.running)
        return min(1.0, tokens / self.profile.kv_size)

    def entered(self, job: Job) -> None:
        """A job has got its slot and its prompt is being read."""
        job.running = True
        self.prompt_tokens[job.rank] += job.prompt_tokens
        if self.profile.dialect == "vllm" and job.kind != "embedding":
            job.held = self._caches[job.rank].begin("".join(job.texts).encode())
            self.found_tokens[job.rank] += job.held.found

    def prefill(self, job: Job) -> float:
        """Seconds in which the prompt of a job that has entered is read."""
        found = job.held.found if job.held else 0
        return self.profile.prefill(job.prompt_tokens - found) / self.speed

    def interval(self) -> float:
        """Seconds between two tokens of one job, as things are."""
        return self.profile.seconds_per_token(self.slots.running) / self.speed

    def left(self, job: Job) -> None:
        """A job has given its slot back, at its end or before."""
        job.running = False
        if job.held is not None:
            self._caches[job.rank].end(job.held, job.text().encode())

    def made(self, job: Job, tokens: int) -> None:
        """A running job has got further."""
        job.made += tokens
        self.generated_tokens[job.rank] += tokens
        self.steps += 1
        self.step_tokens += self.slots.running

    def ended(self, job: Job, *, prefill: float, seconds: float) -> None:
        """A job has made all its tokens, in `seconds` after those of its prefill."""
        self.finished[job.rank, job.finish] += 1
        self.longest = max(self.longest, job.prompt_tokens + job.made)
        self.prefill_seconds += prefill
        self.decode_seconds += seconds
        self.predicted_tokens[job.rank] += job.made
