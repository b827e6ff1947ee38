"""Simulated inference servers for `router run --demo`, for tests and for benchmarks."""

from __future__ import annotations

from mvllm_router.sim.core import Received
from mvllm_router.sim.dialects.base import answer_text
from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.profile import Profile

__all__ = ["Fault", "Profile", "Received", "SimEngine", "answer_text"]
