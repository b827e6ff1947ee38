"""The configuration: what `servers.toml`, the environment and the command line ask for.

Plain values and plain functions: nothing here opens a socket or waits.
"""

from __future__ import annotations

from mvllm_router.config.address import default_name, is_loopback, normalise_url
from mvllm_router.config.auth_keys import AUTH_KEYS
from mvllm_router.config.diff import ConfigDiff, changes, launch_change
from mvllm_router.config.launch_keys import LAUNCH_ENGINES, LAUNCH_KEYS
from mvllm_router.config.load import Override, load, parse, server_from
from mvllm_router.config.model import Config, KeySpec, LaunchSpec, ServerSpec, key_digest
from mvllm_router.config.overlay import CHANGEABLE, Overlay
from mvllm_router.config.problems import ConfigError, Problem, mask_url
from mvllm_router.config.render import entry_of
from mvllm_router.config.rules import Mismatch
from mvllm_router.config.server_keys import ENGINE_ALIASES, ENGINE_NAMES, SERVER_KEYS
from mvllm_router.config.settings import (
    ENGINE_PLUGINS,
    POLICY_NAMES,
    POLICY_PLUGINS,
    SETTINGS,
    Setting,
    Settings,
)
from mvllm_router.config.splice import CannotEdit, with_server, with_values, without_server
from mvllm_router.config.template import template

__all__ = [
    "AUTH_KEYS",
    "CHANGEABLE",
    "ENGINE_ALIASES",
    "ENGINE_NAMES",
    "ENGINE_PLUGINS",
    "LAUNCH_ENGINES",
    "LAUNCH_KEYS",
    "POLICY_NAMES",
    "POLICY_PLUGINS",
    "SERVER_KEYS",
    "SETTINGS",
    "CannotEdit",
    "Config",
    "ConfigDiff",
    "ConfigError",
    "KeySpec",
    "LaunchSpec",
    "Mismatch",
    "Overlay",
    "Override",
    "Problem",
    "ServerSpec",
    "Setting",
    "Settings",
    "changes",
    "default_name",
    "entry_of",
    "is_loopback",
    "key_digest",
    "launch_change",
    "load",
    "mask_url",
    "normalise_url",
    "parse",
    "server_from",
    "template",
    "with_server",
    "with_values",
    "without_server",
]
