"""The live state of all backends: no I/O, no asyncio."""

from mvllm_router.pool.backend import Backend, ModelCard
from mvllm_router.pool.circuit import Circuit, CircuitRules, CircuitState
from mvllm_router.pool.health import Health, HealthRules, State
from mvllm_router.pool.lease import Lease
from mvllm_router.pool.load import Load, Sample, Scrape, estimate
from mvllm_router.pool.pool import Pool

__all__ = [
    "Backend",
    "Circuit",
    "CircuitRules",
    "CircuitState",
    "Health",
    "HealthRules",
    "Lease",
    "Load",
    "ModelCard",
    "Pool",
    "Sample",
    "Scrape",
    "State",
    "estimate",
]
