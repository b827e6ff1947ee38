"""The table of the keys that an entry of `[auth] keys` may have."""

from __future__ import annotations

from dataclasses import dataclass

from mvllm_router.config.rules import Rule

_MOST = 1_000_000_000
# Steps of priority before or behind those that ask for none.
_FARTHEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthKey:
    """One key of the entry. `example` is its value as TOML."""

    name: str
    doc: str
    example: str
    rule: Rule


def _limit(name: str, doc: str, example: str) -> AuthKey:
    rule = Rule(name=name, type=int, minimum=1, maximum=_MOST)
    return AuthKey(name=name, doc=doc, example=example, rule=rule)


AUTH_KEYS: tuple[AuthKey, ...] = (
    AuthKey(
        name="name",
        doc="what it is called in metrics, errors and logs; must be there",
        example='"alice"',
        rule=Rule(name="name", type=str, minimum=1),
    ),
    AuthKey(
        name="key",
        doc="the key itself; one of `key`, `key_env` and `key_file` must be there",
        example='"secret"',
        rule=Rule(name="key", type=str, minimum=1, secret=True),
    ),
    AuthKey(
        name="key_env",
        doc="environment variable that holds the key",
        example='"ALICE_KEY"',
        # Secret, as is `key_file`, since people put the key itself here by mistake.
        rule=Rule(name="key_env", type=str, minimum=1, secret=True),
    ),
    AuthKey(
        name="key_file",
        doc="file that holds the key and nothing else; a path begins at the folder of this file",
        example='"alice.key"',
        rule=Rule(name="key_file", type=str, minimum=1, secret=True),
    ),
    _limit("requests_per_minute", "how many requests it may make", "60"),
    _limit(
        "tokens_per_minute",
        "how many tokens its answers may cost, prompts included",
        "100000",
    ),
    _limit("max_concurrent_requests", "how many requests it may have in flight at once", "4"),
    AuthKey(
        name="models",
        doc="the only models it may use, by the names that clients ask for",
        example='["qwen3-8b", "gpt-4o"]',
        rule=Rule(name="models", type=tuple, unit="names"),
    ),
    AuthKey(
        name="priority",
        doc="added to what its requests ask for in the queue: lower is earlier",
        example="10",
        rule=Rule(name="priority", type=int, minimum=-_FARTHEST, maximum=_FARTHEST),
    ),
)

AUTH_KEY_NAMES: tuple[str, ...] = tuple(key.name for key in AUTH_KEYS)
AUTH_RULES: dict[str, Rule] = {key.name: key.rule for key in AUTH_KEYS}
# Where the key itself can come from.
AUTH_SOURCES = ("key", "key_env", "key_file")
