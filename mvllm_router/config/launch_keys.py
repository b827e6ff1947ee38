"""The table of the keys that an entry of `[[launch]]` may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvllm_router.config.rules import Rule

# "llama.cpp" is llama-server where that is installed, else the server of llama-cpp-python.
LAUNCH_ENGINES = ("vllm", "llama.cpp", "llama-cpp-python", "mlx", "command")

MOST_REPLICAS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchKey:
    """One key of the entry. `example` is its value as TOML.

    `rule` holds for a key with a single value; None: the value is a list or a table of any texts.
    """

    name: str
    doc: str
    example: str
    rule: Rule | None = None


def _key(name: str, doc: str, example: str, rule_type: type, **rule: Any) -> LaunchKey:
    made = Rule(name=name, type=rule_type, **rule)
    return LaunchKey(name=name, doc=doc, example=example, rule=made)


LAUNCH_KEYS: tuple[LaunchKey, ...] = (
    _key(
        "engine",
        "vllm, llama.cpp, llama-cpp-python, mlx or command; must be there",
        '"vllm"',
        str,
        choices=LAUNCH_ENGINES,
    ),
    _key(
        "model",
        "what it serves: a name of the model hub, or a path, which begins at the file's folder",
        '"Qwen/Qwen3-8B"',
        str,
        minimum=1,
    ),
    _key(
        "name",
        "what its servers are called, with -0, -1, ... behind it; else after the model",
        '"qwen"',
        str,
        minimum=1,
        maximum=48,
    ),
    _key(
        "replicas",
        "how many servers; else one for each GPU, or for each `tp` of them",
        "2",
        int,
        minimum=1,
        maximum=MOST_REPLICAS,
    ),
    _key("tp", "GPUs that work together as one server", "4", int, minimum=1, maximum=64),
    _key(
        "gpus",
        "the only GPUs that may be used, by number or UUID; [] for none",
        "[0, 1]",
        tuple,
        unit="strings",
    ),
    _key(
        "slots",
        "how many requests each server works on at once; else left to the engine",
        "32",
        int,
        minimum=1,
        maximum=65536,
    ),
    _key(
        "context",
        "longest request and answer together, in tokens; llama.cpp 4096, else the model's",
        "8192",
        int,
        minimum=16,
        maximum=100_000_000,
    ),
    _key(
        "engine_path",
        "the engine's program (of llama-cpp-python and mlx: a Python), where it is not on the PATH",
        '"/opt/vllm/bin/vllm"',
        str,
        minimum=1,
    ),
    LaunchKey(
        name="args",
        doc="more words for the engine, as they are; of `command`: the command",
        example='["--max-model-len", "8k"]',
    ),
    LaunchKey(
        name="env",
        doc="more environment variables for the engine",
        example='{ HF_HUB_OFFLINE = "1" }',
    ),
    _key(
        "api_key",
        "key that the servers shall ask for, given to them in their environment",
        '"secret"',
        str,
        minimum=1,
        secret=True,
    ),
    _key(
        "api_key_env",
        "environment variable that holds this key",
        '"ENGINE_KEY"',
        str,
        minimum=1,
        # Secret, since people put the key itself here by mistake.
        secret=True,
    ),
    _key("weight", "factor on the capacity of each", "2.0", float, minimum=0.001, maximum=1000),
    _key("force", "true uses GPUs that other programs use as well", "true", bool),
    _key(
        "start_timeout",
        "longest silence of a server that starts, in seconds",
        "600",
        float,
        minimum=1,
        maximum=86400,
    ),
)

LAUNCH_KEY_NAMES: tuple[str, ...] = tuple(key.name for key in LAUNCH_KEYS)
LAUNCH_RULES: dict[str, Rule] = {key.name: key.rule for key in LAUNCH_KEYS if key.rule}
