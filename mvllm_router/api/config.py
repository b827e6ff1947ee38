"""GET /router/config: what the router runs with, and where each value comes from. No secrets."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mvllm_router.config import SETTINGS, Config, ServerSpec, Setting
from mvllm_router.control.live import Live

_HIDDEN = "***"
# Of no use to who reads it: a digest of files.
_INNER = ("tls_files",)


def config_document(live: Live) -> dict[str, object]:
    """Return the configuration that runs."""
    config = live.config
    return {
        "path": str(config.path) if config.path else None,
        "etag": live.etag,
        "live_changes": live.overlay.count,
        "settings": {setting.name: _setting(setting, config) for setting in SETTINGS},
        "policies": dict(config.policies),
        "servers": [_server(spec, config, live) for spec in config.servers],
    }


def _setting(setting: Setting, config: Config) -> dict[str, object]:
    value = getattr(config.settings, setting.name)
    if setting.secret and value:
        value = _HIDDEN
    return {
        "value": list(value) if isinstance(value, tuple) else value,
        "from": config.origins.get(setting.name, "default"),
        "place": config.places.get(setting.name),
        "live": setting.live,
    }


def _server(spec: ServerSpec, config: Config, live: Live) -> dict[str, object]:
    shown: dict[str, Any] = {
        one.name: getattr(spec, one.name) for one in fields(ServerSpec) if one.name not in _INNER
    }
    shown["models"] = list(spec.models)
    shown["aliases"] = dict(spec.aliases)
    shown["tags"] = list(spec.tags)
    shown["api_key"] = _HIDDEN if spec.api_key else None
    shown["headers"] = {name: _HIDDEN for name, _ in spec.headers}
    place = config.server_places.get(spec.name)
    added = spec.name in live.overlay.added
    launched = any(spec.name == one.name for one in live.launched)
    return {
        **shown,
        "from": "admin API" if added else "launch" if launched else "file" if place else "flag",
        "place": None if added else place,
        "changed": sorted(live.overlay.changed.get(spec.name, ())),
    }
