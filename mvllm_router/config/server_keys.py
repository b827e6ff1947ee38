"""The table of the keys that a server's entry may have."""

from __future__ import annotations

from dataclasses import dataclass

from mvllm_router.config.rules import Rule
from mvllm_router.config.settings import ENGINE_PLUGINS

ENGINE_NAMES = ("auto", "vllm", "llama.cpp", "llama-cpp-python", "mlx", "openai")
ENGINE_ALIASES = {
    "llamacpp": "llama.cpp",
    "llama-server": "llama.cpp",
    "llama_cpp.server": "llama-cpp-python",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKey:
    """One key of a server's entry. `example` is its value as TOML.

    `rule` holds for a key with a single value; None: the value is a list or a table.
    """

    name: str
    doc: str
    example: str
    rule: Rule | None = None


SERVER_KEYS: tuple[ServerKey, ...] = (
    ServerKey(
        name="url",
        doc="base address; the only key that must be there",
        example='"http://gpu-server-1:8000"',
        rule=Rule(name="url", type=str, minimum=1),
    ),
    ServerKey(
        name="name",
        doc="what it is called in answers, in metrics and in commands; else host:port",
        example='"big"',
        rule=Rule(name="name", type=str, minimum=1, maximum=64),
    ),
    ServerKey(
        name="engine",
        doc="auto (found out), vllm, llama.cpp, llama-cpp-python, mlx or openai",
        example='"vllm"',
        rule=Rule(name="engine", type=str, choices=ENGINE_NAMES, plugins=ENGINE_PLUGINS),
    ),
    ServerKey(
        name="max_concurrent_requests",
        doc="how many requests it can work on at once; else it is asked",
        example="32",
        rule=Rule(name="max_concurrent_requests", type=int, minimum=1, maximum=1_000_000),
    ),
    ServerKey(
        name="weight",
        doc="factor on its capacity: 2.0 gets twice the share",
        example="2.0",
        rule=Rule(name="weight", type=float, minimum=0.001, maximum=1000),
    ),
    ServerKey(
        name="models",
        doc="list: the only models it is used for; table: more names for its models",
        example='{ "gpt-4o" = "Qwen/Qwen3-8B" }',
    ),
    ServerKey(
        name="api_key",
        doc="key that the server asks for",
        example='"secret"',
        rule=Rule(name="api_key", type=str, minimum=1, secret=True),
    ),
    ServerKey(
        name="api_key_env",
        doc="environment variable that holds this key, to keep it out of the file",
        example='"GPU_1_KEY"',
        # Secret, since people put the key itself here by mistake.
        rule=Rule(name="api_key_env", type=str, minimum=1, secret=True),
    ),
    ServerKey(
        name="headers",
        doc="more headers for each request to it",
        example='{ X-Team = "research" }',
    ),
    ServerKey(
        name="tls_verify",
        doc="false trusts any certificate of an https server",
        example="false",
        rule=Rule(name="tls_verify", type=bool),
    ),
    ServerKey(
        name="tls_ca",
        doc="file with the CA that an https server's certificate must come from, not the system's",
        example='"ca.pem"',
        rule=Rule(name="tls_ca", type=str),
    ),
    ServerKey(
        name="tls_cert",
        doc="file with the certificate that the router shows to a server which asks for one",
        example='"router.pem"',
        rule=Rule(name="tls_cert", type=str),
    ),
    ServerKey(
        name="tls_key",
        doc="file with the private key of tls_cert, where it is not in the same file",
        example='"router.key"',
        rule=Rule(name="tls_key", type=str),
    ),
    ServerKey(
        name="tags",
        doc="words of your own, shown in /router/snapshot",
        example='["a100", "rack-2"]',
    ),
)

SERVER_KEY_NAMES: tuple[str, ...] = tuple(key.name for key in SERVER_KEYS)
SERVER_RULES: dict[str, Rule] = {key.name: key.rule for key in SERVER_KEYS if key.rule}
