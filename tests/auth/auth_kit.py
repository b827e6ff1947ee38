"""Makes keys and gates for tests: no router, and a clock to turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mvllm_router.auth import Gate, Holder
from mvllm_router.config import Config, KeySpec, Settings, key_digest


def key(name: str, value: str = "", **limits: Any) -> KeySpec:
    """Return a key; its value is `NAME-secret` unless another one is given."""
    return KeySpec(name, key_digest(value or f"{name}-secret"), **limits)


def config(*keys: KeySpec, **settings: Any) -> Config:
    return Config(servers=(), settings=Settings(**settings), keys=keys)


def gate(*keys: KeySpec, monotonic: Callable[[], float] = time.monotonic, **settings: Any) -> Gate:
    return Gate(config(*keys, **settings), monotonic)


def holder(gate: Gate, name: str) -> Holder:
    """Return what a gate knows of the key of that name."""
    (found,) = [one for one in gate.holders if one.name == name]
    return found


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}
