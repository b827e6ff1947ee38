"""Policies and engines of other packages can be named in the file."""

from __future__ import annotations

import importlib.metadata

import pytest

from mvllm_router.config import ENGINE_PLUGINS, POLICY_PLUGINS, ConfigError, parse, rules

TEXT = """
[servers]
servers = [{ url = "http://a:1", engine = "MyEngine" }]
[config]
policy = "MyPolicy"
"""


def test_an_installed_plug_in_is_a_choice_and_keeps_its_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [
        importlib.metadata.EntryPoint("MyEngine", "x:y", ENGINE_PLUGINS),
        importlib.metadata.EntryPoint("MyPolicy", "x:y", POLICY_PLUGINS),
    ]
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [entry for entry in entries if entry.group == group],
    )
    config = parse(TEXT, environ={})
    assert config.servers[0].engine == "MyEngine"
    assert config.settings.policy == "MyPolicy"


def test_one_that_is_not_installed_is_a_problem() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(TEXT, environ={})
    assert {problem.line for problem in raised.value.problems} == {3, 5}


def test_a_policy_without_what_it_needs_is_a_problem_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = '[servers]\nservers = ["http://a:1"]\n[config]\npolicy = "kv_events"\n'
    assert parse(text, environ={}).settings.policy == "kv_events"
    monkeypatch.setattr(rules, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        parse(text, environ={})
    [problem] = raised.value.problems
    assert problem.line == 4
    assert '"kv_events" needs the Python package `zmq`, which is not installed' in problem.message
    assert problem.hint == "pip install 'mvllm-router[kv]'"
    with pytest.raises(ConfigError, match="ROUTER_POLICY"):
        parse("", environ={"ROUTER_POLICY": "kv_events"})
    assert parse("", environ={"ROUTER_POLICY": "prefix"}).settings.policy == "prefix"
