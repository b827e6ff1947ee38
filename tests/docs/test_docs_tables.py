"""The tables of the documentation say what the tables in the code say, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator

from docs_text import first_cells, rows, section, text_of

from mvllm_router import cli
from mvllm_router.api.metric_table import METRICS
from mvllm_router.api.metric_values import MetricRow
from mvllm_router.cli.output import Exit
from mvllm_router.config import (
    AUTH_KEYS,
    ENGINE_ALIASES,
    ENGINE_NAMES,
    LAUNCH_KEYS,
    POLICY_NAMES,
    SERVER_KEYS,
    SETTINGS,
    Setting,
)
from mvllm_router.config.rules import plain
from mvllm_router.dashboard.keys import KEYS
from mvllm_router.engines import ENGINES
from mvllm_router.engines import get as get_engine
from mvllm_router.errors import RouterError
from mvllm_router.pool import State


def settings_row(setting: Setting) -> str:
    default = setting.default
    shown = plain(default) if isinstance(default, float) else json.dumps(default)
    change = "at once" if setting.live else "restart"
    cells = (
        f"`{setting.name}`",
        f"`{setting.variable}`",
        f"`{shown}`",
        setting.expected(),
        "–" if setting.no_effect else change,
        setting.doc,
    )
    return f"| {' | '.join(cells)} |"


def exposed_name(row: MetricRow) -> str:
    return f"{row.name}_total" if row.kind == "counter" else row.name


def metric_row(row: MetricRow) -> str:
    labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
    return f"| `{exposed_name(row)}` | {row.kind} | {labels} | {row.help} |"


def errors(parent: type[RouterError] = RouterError) -> Iterator[type[RouterError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from errors(child)


def error_cells(error: type[RouterError]) -> str:
    return f"| {error.status} | `{error.type}` | `{error.code or error.status}` |"


def test_every_setting_stands_in_the_table_as_it_is_in_the_code() -> None:
    table = section(text_of("docs/configuration.md"), "Settings")
    assert rows(table) == [settings_row(setting) for setting in SETTINGS]


def test_every_key_of_a_server_stands_in_the_table_with_its_example() -> None:
    table = section(text_of("docs/configuration.md"), "Keys of a server")
    cells = [" | ".join(row.split(" | ")[:2]) for row in rows(table)]
    assert cells == [f"| `{key.name}` | `{key.example}`" for key in SERVER_KEYS]


def test_every_key_of_a_launch_stands_in_the_table_with_its_example() -> None:
    table = section(text_of("docs/launch.md"), "In servers.toml")
    cells = [" | ".join(row.split(" | ")[:2]) for row in rows(table)]
    assert cells == [f"| `{key.name}` | `{key.example}`" for key in LAUNCH_KEYS]


def test_every_key_of_a_client_stands_in_the_table_with_its_example() -> None:
    table = section(text_of("docs/configuration.md"), "Keys of clients")
    cells = [" | ".join(row.split(" | ")[:2]) for row in rows(table)]
    assert cells == [f"| `{key.name}` | `{key.example}`" for key in AUTH_KEYS]


def test_every_metric_stands_in_the_table_as_it_is_in_the_code() -> None:
    table = section(text_of("docs/metrics.md"), "The router's own")
    assert rows(table) == [metric_row(row) for row in METRICS]


def test_every_error_stands_in_the_table_with_its_status_type_and_code() -> None:
    table = section(text_of("docs/http.md"), "Errors")
    cells = {" | ".join(row.split(" | ")[:3]) + " |" for row in rows(table)}
    assert cells == {error_cells(error) for error in errors()}


def test_every_exit_code_stands_in_the_table() -> None:
    table = section(text_of("docs/http.md"), "Exit codes")
    assert first_cells(table) == [str(code.value) for code in Exit] + [str(cli._INTERRUPTED)]


def test_every_engine_stands_in_both_tables_with_its_default_capacity() -> None:
    assert set(ENGINES) == set(ENGINE_NAMES) - {"auto"}
    for page in ("README.md", "docs/engines.md"):
        assert first_cells(section(text_of(page), "Engines")) == list(ENGINES)
    for row in rows(section(text_of("docs/engines.md"), "Engines")):
        cells = row.split(" | ")
        engine = get_engine(cells[0].strip("|` "))
        asked = [engine.health_path, engine.models_path, engine.metrics_path, engine.capacity_path]
        assert cells[2:6] == [f"`GET {path}`" if path else "–" for path in asked], engine.name
        assert cells[6].rstrip(" |") == str(engine.default_capacity), engine.name


def test_every_other_spelling_of_an_engine_is_named() -> None:
    text = text_of("docs/engines.md")
    for alias in ENGINE_ALIASES:
        assert f"`{alias}`" in text


def test_every_policy_stands_in_the_table() -> None:
    assert first_cells(section(text_of("README.md"), "Policies")) == list(POLICY_NAMES)


def test_every_state_of_a_server_stands_in_the_table() -> None:
    table = section(text_of("docs/operations.md"), "Health and states")
    of_those_up = ["resting", "open", "half-open", "drain"]
    assert first_cells(table) == [state.value for state in State] + of_those_up


def test_every_key_of_the_dashboard_stands_in_the_table() -> None:
    table = section(text_of("docs/dashboard.md"), "Keys")
    assert rows(table) == [f"| `{key.shown}` | {key.help} |" for key in KEYS]
