"""What a configuration comes to: values that nothing changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvllm_router.config.problems import Problem
from mvllm_router.config.settings import Settings

__all__ = ["Config", "ServerSpec", "Settings"]


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server, as it was configured.

    `url` is normalised (see normalise_url); `name` is unique, and fit for a header and a label.
    `max_concurrent_requests` of None: the server is asked, or its engine's default is taken.
    `models`, unless empty, are the only ones it is used for, whatever it lists. `aliases` lead from
    more public names to the server's own ones.
    """

    url: str
    name: str
    engine: str = "auto"
    max_concurrent_requests: int | None = None
    weight: float = 1.0
    models: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    api_key: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls_verify: bool = True
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All that the router runs with.

    `origins` says for each setting where its value comes from: "default", "file", "environment" or
    "flag". `warnings` do not keep the router from running.
    """

    servers: tuple[ServerSpec, ...]
    settings: Settings
    path: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict, hash=False)
    warnings: tuple[Problem, ...] = ()
