"""What a configuration comes to: values that nothing changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mvllm_router.config.problems import Problem
from mvllm_router.config.settings import Settings

__all__ = [
    "DEFAULT_KEY",
    "START_TIMEOUT",
    "Config",
    "KeySpec",
    "LaunchSpec",
    "ServerSpec",
    "Settings",
    "key_digest",
]

# What the key of the setting `api_key` is called beside those of `[auth]`.
DEFAULT_KEY = "default"
# Seconds that a server which starts may be silent: it may fetch its model meanwhile.
START_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server, as it was configured.

    `url` is normalised (see normalise_url); `name` is unique, and fit for a header and a label.
    `max_concurrent_requests` of None: the server is asked, or its engine's default is taken.
    `models`, unless empty, are the only ones it is used for, whatever it lists. `aliases` lead from
    more public names to the server's own ones. `tls_ca`, `tls_cert` and `tls_key` are paths, "" for
    none; `tls_files` changes when what these files hold does.
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
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_files: str = field(default="", repr=False)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Servers that the router starts itself, as they were configured: one entry of `[[launch]]`.

    Its servers are called `name`-0, `name`-1, ...; `replicas` of None: as many as the GPUs allow.
    `tp` is the number of GPUs of each, `gpus` the only ones that may be used, by number or UUID;
    None: all that there are. `slots` is how many requests each works on at once, `context` the
    longest of them in tokens; None leaves both to the engine. `args` go to the engine as they are;
    for the engine "command" they are the command. `start_timeout` is the longest silence of a
    server that starts, in seconds.
    """

    name: str
    engine: str
    model: str = ""
    replicas: int | None = None
    tp: int = 1
    gpus: tuple[str, ...] | None = None
    slots: int | None = None
    context: int | None = None
    engine_path: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)  # people put keys there
    env: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    api_key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    force: bool = False
    start_timeout: float = START_TIMEOUT


def key_digest(key: str) -> bytes:
    """What is kept of a client's key: enough to know it again, and no way back to it."""
    # Headers are read with surrogate escapes: a client can send bytes that are no UTF-8.
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One key that clients may present, and what it allows them; None is "no limit".

    `digest` comes from key_digest. `models`, unless empty, are the only ones that may be asked for,
    by the names that clients use. `priority` is added to what its requests ask for: lower is
    earlier.
    """

    name: str
    digest: bytes = field(repr=False)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    models: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """All that the router runs with.

    `keys` are those of `[auth]`. `origins` says for each setting where its value comes from:
    "default", "file", "environment" or "flag", and `places` where that is: "servers.toml:12",
    "ROUTER_PORT", "--port"; `server_places` the same for servers of the file, by name. `warnings`
    do not keep the router from running. `is_blank`: there is a file, with nothing in it.
    `policies` are the names of those that some models have for themselves, by model.
    """

    servers: tuple[ServerSpec, ...]
    settings: Settings
    path: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict, hash=False)
    warnings: tuple[Problem, ...] = ()
    keys: tuple[KeySpec, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, hash=False)
    server_places: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_blank: bool = False
    launches: tuple[LaunchSpec, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def client_keys(self) -> tuple[KeySpec, ...]:
        """All keys that clients may present; with none, everybody may come in."""
        key = self.settings.api_key
        return (*self.keys, KeySpec(DEFAULT_KEY, key_digest(key))) if key else self.keys
