"""A name becomes a policy: built in, or installed by somebody else."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from mvllm_router.config import POLICY_PLUGINS
from mvllm_router.config.settings import POLICY_NAMES
from mvllm_router.policies import POLICIES, book, make
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.policies.round_robin import RoundRobin


def test_the_configuration_knows_each_of_them() -> None:
    assert set(POLICY_NAMES) == set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_each_name_makes_its_policy(name: str) -> None:
    place = POLICIES[name]
    kind = type(make(name))
    assert f"{kind.__module__}:{kind.__qualname__}" == place


def test_each_use_has_its_own_state() -> None:
    assert make("round_robin") is not make("round_robin")


def test_an_installed_policy_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = EntryPoint("mine", "mvllm_router.policies.round_robin:RoundRobin", POLICY_PLUGINS)
    asked: list[dict[str, str]] = []

    def entry_points(**select: str) -> list[EntryPoint]:
        asked.append(select)
        return [mine] if select == {"group": POLICY_PLUGINS, "name": "mine"} else []

    monkeypatch.setattr(book, "entry_points", entry_points)
    assert isinstance(make("mine"), RoundRobin)
    assert isinstance(make("least_load"), LeastLoad)
    assert len(asked) == 1, "built-in names need no search through what is installed"


def test_a_name_that_nobody_has_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ValueError, match="no policy is called 'fastest'; there are least_load, "):
        make("fastest")
