"""The servers that a simulated engine can stand for."""

from __future__ import annotations

from mvllm_router.sim.dialects.base import Dialect
from mvllm_router.sim.dialects.llamacpp import LlamaCpp
from mvllm_router.sim.dialects.llamacpp_python import LlamaCppPython
from mvllm_router.sim.dialects.mlx import Mlx
from mvllm_router.sim.dialects.openai import OpenAI
from mvllm_router.sim.dialects.vllm import Vllm
from mvllm_router.sim.profile import DialectName, Profile

_DIALECTS: dict[DialectName, type[Dialect]] = {
    "vllm": Vllm,
    "llama.cpp": LlamaCpp,
    "llama-cpp-python": LlamaCppPython,
    "mlx": Mlx,
    "openai": OpenAI,
}


def make_dialect(profile: Profile, seed: int) -> Dialect:
    """The dialect that a profile names."""
    return _DIALECTS[profile.dialect](profile, seed)
