"""Who may come in, and how much of it: keys of clients with their limits, the key of operators.

Plain synchronous decisions; the clock is passed in.
"""

from __future__ import annotations

from mvllm_router.auth.caller import ANYBODY, Caller, Holder
from mvllm_router.auth.gate import OPEN_PATHS, Gate, presented_key

__all__ = ["ANYBODY", "OPEN_PATHS", "Caller", "Gate", "Holder", "presented_key"]
