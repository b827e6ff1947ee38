"""GET /v1/models and /v1/models/{id}: merged over the servers that are up, from memory."""

from __future__ import annotations

from typing import Any

from mvllm_router.auth import ANYBODY, Caller
from mvllm_router.errors import ModelNotFound
from mvllm_router.pool import Backend, Pool

# Model names listed in an error before it is cut short.
_NAMED = 20


def model_cards(pool: Pool, caller: Caller = ANYBODY) -> dict[str, dict[str, Any]]:
    """Return the entry of each model that `caller` may use, by name.

    The first server that lists it gives the entry.
    """
    cards: dict[str, dict[str, Any]] = {}
    for backend in pool.backends.values():
        if backend.is_up:
            for name in filter(caller.may_use, sorted(backend.model_names() or ())):
                cards.setdefault(name, _card(backend, name))
    return cards


def models_document(pool: Pool, caller: Caller = ANYBODY) -> dict[str, object]:
    return {"object": "list", "data": list(model_cards(pool, caller).values())}


def model_document(pool: Pool, name: str, caller: Caller = ANYBODY) -> dict[str, Any]:
    """Return one model's entry.

    Raises:
        ModelNotFound: no server that is up lists it, or `caller` may not use it.
    """
    cards = model_cards(pool, caller)
    if name not in cards:
        there = ", ".join([*cards][:_NAMED]) + (", ..." if len(cards) > _NAMED else "") or "none"
        raise ModelNotFound(
            f"The model `{name[:200]}` does not exist. There are: {there}", param="model"
        )
    return cards[name]


def _card(backend: Backend, name: str) -> dict[str, Any]:
    told = (backend.cards or {}).get(backend.own_name(name))
    if told is None:
        return {"id": name, "object": "model", "created": 0, "owned_by": backend.engine}
    return {**told, "id": name}
