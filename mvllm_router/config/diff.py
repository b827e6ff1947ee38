"""What a new configuration changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

from mvllm_router.config.model import Config, LaunchSpec, ServerSpec
from mvllm_router.config.settings import SETTINGS, Setting

_Spec = TypeVar("_Spec", ServerSpec, LaunchSpec)

NEEDS_RESTART = "needs restart"
# What decides where the servers of a launch run, and cannot change while they do.
_PLACING = {"engine", "tp", "gpus"}


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """Names only, never values: what changed may be a secret.

    `added` and `removed` are names of servers; `changed` leads from the name of a server that stays
    to the names of its fields that differ. `live` and `needs_restart` are names of settings, or
    "policies" for those of single models, or "launch NAME" for servers that the router starts;
    `keys` those of clients' keys that came, went or changed, which is live as well. `launches`
    leads from the name of a launch to what becomes of it: see `launch_change`. False when
    nothing changed.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    live: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    launches: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))


def changes(old: Config, new: Config) -> ConfigDiff:
    """Compare two configurations. Servers are the same when their names are."""
    before = {server.name: server for server in old.servers}
    after = {server.name: server for server in new.servers}
    differing = [setting for setting in SETTINGS if _differs(setting, old, new)]
    launches = _changed_launches(old.launches, new.launches)
    return ConfigDiff(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=_changed_servers(before, after),
        live=(
            *(setting.name for setting in differing if setting.live),
            *(("policies",) if old.policies != new.policies else ()),
        ),
        needs_restart=(
            *(setting.name for setting in differing if not setting.live),
            *(f"launch {name}" for name, change in launches.items() if change == NEEDS_RESTART),
        ),
        keys=_changed_keys(old, new),
        launches={name: how for name, how in launches.items() if how != NEEDS_RESTART},
    )


def launch_change(old: LaunchSpec | None, new: LaunchSpec | None) -> str:
    """Return what becomes of a launch, None where there is none; "" for nothing.

    "added" and "removed" are carried out, and so is "scaled", another number of servers. "changed"
    is what each server takes with its next start. NEEDS_RESTART: it would be another place.
    """
    if old is None or new is None:
        return "" if old is new else "added" if old is None else "removed"
    differing = set(_changed_fields(old, new))
    if differing & _PLACING:
        return NEEDS_RESTART
    if "replicas" in differing and new.replicas is None:
        differing.discard("replicas")  # there are as many as somebody has said before
    if differing == {"replicas"}:
        return "scaled"
    return "changed" if differing else ""


def _changed_launches(old: Sequence[LaunchSpec], new: Sequence[LaunchSpec]) -> dict[str, str]:
    before = {launch.name: launch for launch in old}
    after = {launch.name: launch for launch in new}
    names = dict.fromkeys((*before, *after))
    found = {name: launch_change(before.get(name), after.get(name)) for name in names}
    return {name: change for name, change in found.items() if change}


def _changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    before = {key.name: key for key in old.keys}
    after = {key.name: key for key in new.keys}
    names = dict.fromkeys((*before, *after))
    return tuple(name for name in names if before.get(name) != after.get(name))


def _differs(setting: Setting, old: Config, new: Config) -> bool:
    if setting.no_effect:
        return False
    return bool(getattr(old.settings, setting.name) != getattr(new.settings, setting.name))


def _changed_servers(
    before: Mapping[str, ServerSpec], after: Mapping[str, ServerSpec]
) -> dict[str, tuple[str, ...]]:
    return {
        name: _changed_fields(before[name], server)
        for name, server in after.items()
        if name in before and server != before[name]
    }


def _changed_fields(old: _Spec, new: _Spec) -> tuple[str, ...]:
    names = (one.name for one in fields(old))
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
