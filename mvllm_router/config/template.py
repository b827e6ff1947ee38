"""The commented file that `router init` writes."""

from __future__ import annotations

import textwrap

from mvllm_router.config.auth_keys import AUTH_KEYS, AuthKey
from mvllm_router.config.launch_keys import LAUNCH_KEYS, LaunchKey
from mvllm_router.config.rules import Value, plain
from mvllm_router.config.server_keys import SERVER_KEYS, ServerKey
from mvllm_router.config.settings import SETTINGS, Setting

_HEAD = """\
# The servers that `router run` sends requests to, and how it does so.
# The router watches this file: a change is live at once, and a file with a mistake is refused while
# the old configuration stays. `router check` says all that is wrong with it.

[servers]
servers = [
    { url = "http://127.0.0.1:8000" },
    # { url = "http://gpu-server-1:8000", name = "big", max_concurrent_requests = 32 },
    # { url = "http://gpu-server-2:8080", engine = "llama.cpp", weight = 0.5 },
    # { url = "https://api.example.com", engine = "openai", api_key_env = "EXAMPLE_API_KEY" },
]
"""
_KEYS_HEAD = "# The keys of a server:\n"
_LAUNCH_HEAD = """\
# Servers that the router starts, watches and stops itself, on the GPUs of this machine.
#   [[launch]]
#   engine = "vllm"
#   model = "Qwen/Qwen3-8B"
# The keys of such a table:
"""
_AUTH_HEAD = """\
# Keys that clients have to present. Without any, and without api_key, everybody may come in.
#   [auth]
#   keys = [
#       { name = "alice", key_env = "ALICE_KEY", requests_per_minute = 60 },
#       { name = "bob", key_file = "bob.key", models = ["qwen3-8b"] },
#   ]
# The keys of such an entry:
"""
_CONFIG_HEAD = """\
# All settings with their defaults. Each may also come from the environment, as ROUTER_PORT.
[config]
"""


def template() -> str:
    """The text of a `servers.toml` with every setting, commented out, and examples of entries."""
    keys = _KEYS_HEAD + "".join(_row(key) for key in SERVER_KEYS)
    launch = _LAUNCH_HEAD + "".join(_row(key) for key in LAUNCH_KEYS)
    auth = _AUTH_HEAD + "".join(_row(key) for key in AUTH_KEYS)
    settings = "\n".join(_explained(setting) for setting in SETTINGS if not setting.no_effect)
    return f"{_HEAD}\n{keys}\n{launch}\n{auth}\n{_CONFIG_HEAD}\n{settings}"


def _row(key: ServerKey | AuthKey | LaunchKey) -> str:
    return f"#   {key.name} = {key.example}\n#       {key.doc}\n"


def _explained(setting: Setting) -> str:
    lines = textwrap.wrap(f"{setting.doc} {_facts(setting)}", width=98)
    comment = "".join(f"# {line}\n" for line in lines)
    return f"{comment}# {setting.name} = {_as_toml(setting.default)}\n"


def _facts(setting: Setting) -> str:
    facts = [] if setting.live else ["A change needs a restart."]
    if setting.choices or setting.type in (int, float):
        expected = setting.expected()
        facts.insert(0, f"{expected[0].upper()}{expected[1:]}.")
    return " ".join(facts)


def _as_toml(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_as_toml(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else plain(value)
