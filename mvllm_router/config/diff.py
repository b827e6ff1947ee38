"""What a new configuration changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from mvllm_router.config.model import Config, ServerSpec
from mvllm_router.config.settings import SETTINGS, Setting


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """Names only, never values: what changed may be a secret.

    `added` and `removed` are names of servers; `changed` leads from the name of a server that stays
    to the names of its fields that differ. `live` and `needs_restart` are names of settings, or
    "launch" for the servers that the router starts itself; `keys` those of clients' keys that came,
    went or changed, which is live as well. False when nothing changed.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    live: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))


def changes(old: Config, new: Config) -> ConfigDiff:
    """Compare two configurations. Servers are the same when their names are."""
    before = {server.name: server for server in old.servers}
    after = {server.name: server for server in new.servers}
    differing = [setting for setting in SETTINGS if _differs(setting, old, new)]
    return ConfigDiff(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=_changed_servers(before, after),
        live=tuple(setting.name for setting in differing if setting.live),
        needs_restart=(
            *(setting.name for setting in differing if not setting.live),
            *(("launch",) if old.launches != new.launches else ()),
        ),
        keys=_changed_keys(old, new),
    )


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


def _changed_fields(old: ServerSpec, new: ServerSpec) -> tuple[str, ...]:
    names = (one.name for one in fields(ServerSpec))
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
