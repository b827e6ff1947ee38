"""The table of all settings: the keys of `[config]`, each with its default, range and meaning.

What checks, documents, resolves or compares settings is made from SETTINGS, so that a new setting
is one new field of Settings and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from mvllm_router.config.items import network, origin
from mvllm_router.config.pem import Pem
from mvllm_router.config.rules import Need, Rule, Value

POLICY_NAMES = (
    "least_load",
    "round_robin",
    "random",
    "power_of_two",
    "weighted",
    "latency",
    "session",
    "prefix",
    "kv_events",
)
# What a policy cannot do without, and the extra of this package that brings it.
_POLICY_NEEDS = (Need("kv_events", "zmq", "kv"),)
# Groups of entry points: an installed package that has `mine` in one makes that name work here.
POLICY_PLUGINS = "mvllm_router.policies"
ENGINE_PLUGINS = "mvllm_router.engines"

_SECONDS = "seconds"
# Shorter waits are of no use to a person and would keep the router busy with itself.
_SHORTEST = 0.1

_T = TypeVar("_T", bool, int, float, str, "tuple[str, ...]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Rule):
    """One key of `[config]`.

    `live`: a change of the file takes effect at once, else with the next start. `no_effect`: the
    key is accepted for old files, and does nothing. `pem`: the value is the path of a file with
    this, "" for none; in the configuration file it is relative to the folder of that.
    """

    default: Value
    doc: str
    live: bool = True
    no_effect: bool = False
    pem: Pem | None = None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"ROUTER_{self.name.upper()}"


def _setting(
    default: _T,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    plugins: str = "",
    needs: tuple[Need, ...] = (),
    unit: str = "",
    live: bool = True,
    secret: bool = False,
    no_effect: bool = False,
    item: Callable[[str], str] | None = None,
    pem: Pem | None = None,
) -> _T:
    setting = Setting(
        type=type(default),
        default=default,
        doc=doc,
        minimum=minimum,
        maximum=maximum,
        choices=choices,
        plugins=plugins,
        needs=needs,
        unit=unit,
        live=live,
        secret=secret,
        no_effect=no_effect,
        item=item,
        pem=pem,
    )
    return field(default=default, repr=not secret, metadata={"setting": setting})


def _seconds(
    default: float,
    doc: str,
    *,
    minimum: float = _SHORTEST,
    no_effect: bool = False,
) -> float:
    return _setting(default, doc, minimum=minimum, unit=_SECONDS, no_effect=no_effect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of all settings. Times are in seconds, sizes in bytes."""

    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 lets other machines in, and then an api_key is wise.",
        minimum=1,
        live=False,
    )
    port: int = _setting(
        8888,
        "Port to listen on; with 0 the system chooses a free one.",
        minimum=0,
        maximum=65535,
        live=False,
    )
    policy: str = _setting(
        "least_load",
        "How a server is chosen among those that have the model and can take the request.",
        choices=POLICY_NAMES,
        plugins=POLICY_PLUGINS,
        needs=_POLICY_NEEDS,
    )
    allow_policy_header: bool = _setting(
        False,
        "Whether a request may name the policy that is asked for it, in the header "
        "x-router-policy: to try one out.",
    )
    api_key: str = _setting(
        "",
        "Key that clients must present; empty lets everybody in.",
        secret=True,
    )
    admin_key: str = _setting(
        "",
        "Key for the routes under /router/ that change something; while it is empty they work only "
        "on a router that listens on loopback.",
        secret=True,
    )
    open_metrics: bool = _setting(
        False, "Whether /metrics and /load-stats are answered without a key."
    )
    tls_cert: str = _setting(
        "",
        "File with the certificate, and those between it and its CA, that the router shows to "
        "clients; with tls_key it speaks https, and what the file holds may change at any time.",
        live=False,
        pem=Pem.CERTIFICATE,
    )
    tls_key: str = _setting("", "File with the private key of tls_cert.", live=False, pem=Pem.KEY)
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        'Proxies in front of the router, such as "10.0.0.0/8" or "127.0.0.1": what they say '
        "about clients in X-Forwarded-For and the like is believed and sent on.",
        unit="networks",
        item=network,
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        'Origins of web pages, such as "https://chat.example.com", that may call the router from '
        'a browser; "*" is any.',
        unit="origins",
        item=origin,
    )
    connect_timeout: float = _seconds(5.0, "Longest wait for a connection to a server.")
    first_byte_timeout: float = _seconds(
        0.0,
        "Longest wait for the first byte of a server's answer; 0 is as long as request_timeout.",
        minimum=0,
    )
    request_timeout: float = _seconds(
        300.0,
        "Longest silence of a server, before the first byte of its answer and then between bytes; "
        "never a limit for the whole answer.",
    )
    header_timeout: float = _seconds(
        30.0, "Longest that a client may take to send the head of a request."
    )
    max_retries: int = _setting(
        3,
        "How many more servers are tried when one fails before the first byte of its answer.",
        minimum=0,
        maximum=100,
    )
    max_body_size: int = _setting(
        64 * 1024 * 1024,
        "Largest request that is taken.",
        minimum=1,
        unit="bytes",
    )
    enforce_capacity: bool = _setting(
        False,
        "Whether a server never gets more than max_concurrent_requests at once; what is beyond "
        "waits in the router or is refused, see max_queue.",
    )
    max_queue: int = _setting(
        0,
        "How many requests may wait in the router until a server has room; above 0 it also turns "
        "enforce_capacity on.",
        minimum=0,
    )
    learn: bool = _setting(
        True,
        "Whether the router finds out from the traffic how many requests each server runs at once, "
        "and how fast it is.",
    )
    queue_timeout: float = _seconds(60.0, "Longest that a request waits in the router.")
    priority_ageing: float = _seconds(
        5.0,
        "Time that a request has to wait in the router to make up for one step of priority; with "
        "0 priorities have no effect.",
        minimum=0,
    )
    hide_upstream_errors: bool = _setting(
        False, "Whether clients get a plain text in place of what a server says when it fails."
    )
    scrape_interval: float = _seconds(
        1.0, "Time between two looks at the metrics of a server; with more than a hundred, longer."
    )
    health_check_interval: float = _seconds(10.0, "Time between two health checks of a server.")
    health_check_timeout: float = _seconds(5.0, "Longest wait for the answer to a health check.")
    enable_active_health_check: bool = _setting(
        True,
        "Whether servers are asked for their health; without it, only requests that fail tell.",
    )
    health_check_max_response_time: float = _seconds(
        10.0, "A health check that takes longer counts as failed, though it was answered."
    )
    health_check_min_success_rate: float = _setting(
        0.8,
        "Share of the last health checks that must succeed for a server to count as healthy.",
        minimum=0,
        maximum=1,
    )
    health_check_window_size: int = _setting(
        10,
        "How many health checks health_check_min_success_rate looks back on.",
        minimum=1,
        maximum=1000,
    )
    health_check_consecutive_failures: int = _setting(
        3, "How many health checks in a row must fail before a server is taken out.", minimum=1
    )
    failure_threshold: int = _setting(
        5,
        "How many requests a server must fail within failure_window, one after the other or being "
        "half of those that it got, before its circuit opens and it is left out.",
        minimum=1,
    )
    failure_window: float = _seconds(
        30.0, "Time over which the failed requests of a server are counted."
    )
    auto_recovery_threshold: float = _seconds(
        60.0,
        "Longest time between two trials of a server that was left out because requests failed: "
        "the first comes after 1 second, and each that fails doubles the time. Without health "
        "checks also the time until a server that refused connections is tried again.",
    )
    shutdown_timeout: float = _seconds(
        30.0, "Longest that requests in flight may take to end when the router stops.", minimum=0
    )
    log_level: str = _setting(
        "info",
        "The least severe lines that are logged.",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = _setting(
        "text",
        "Log lines for people (text) or for programs (json).",
        choices=("text", "json"),
        live=False,
    )
    log_file: str = _setting(
        "", "File that log lines are added to; empty logs to stderr.", live=False
    )
    config_reload_interval: float = _seconds(
        60.0,
        "No effect any more: the file is watched, and a change is live at once.",
        minimum=0,
        no_effect=True,
    )


SETTINGS: tuple[Setting, ...] = tuple(
    replace(one.metadata["setting"], name=one.name) for one in fields(Settings)
)
