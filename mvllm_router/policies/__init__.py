"""Policies: each picks one of the candidates. Users add theirs as entry points."""

from mvllm_router.policies.base import Choice, Policy, Supposed, Wish
from mvllm_router.policies.book import POLICIES, Policies, make

__all__ = ["POLICIES", "Choice", "Policies", "Policy", "Supposed", "Wish", "make"]
