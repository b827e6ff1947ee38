"""A model may have a policy of its own."""

from __future__ import annotations

import pytest

from mvllm_router.config import Config, ConfigError, changes, parse


def parsed(text: str) -> Config:
    return parse(text, environ={})


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parsed(text)
    (problem,) = raised.value.problems
    return problem.render()


def test_models_have_the_policies_that_the_table_gives_them() -> None:
    config = parsed('[policies]\n"Qwen/Qwen3-8B" = "prefix"\nbge = "Round_Robin"\n')
    assert config.policies == {"Qwen/Qwen3-8B": "prefix", "bge": "round_robin"}


def test_without_the_table_no_model_has_one() -> None:
    assert parsed("").policies == {}


def test_a_policy_that_there_is_not_is_shown_where_it_stands() -> None:
    told = problem_of('[policies]\nm = "prefx"\n')
    assert "servers.toml:2:5" in told
    assert 'm = "prefx"' in told
    assert "in [policies]" in told
    assert "`prefix`" in told


def test_what_is_no_table_is_a_problem() -> None:
    assert "`policies` must be a table" in problem_of('policies = "prefix"\n')


def test_a_change_of_the_table_is_live() -> None:
    before, after = parsed(""), parsed('[policies]\nm = "prefix"\n')
    diff = changes(before, after)
    assert diff.live == ("policies",)
    assert diff.needs_restart == ()
    assert not changes(after, after)
