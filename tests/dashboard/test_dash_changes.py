"""What is sent when a person changes something."""

from __future__ import annotations

import pytest
from dash_kit import server

from mvllm_router.client import Refused
from mvllm_router.dashboard import changes
from mvllm_router.dashboard.changes import Mistyped


def test_names_are_quoted_in_paths() -> None:
    assert changes.drain("a/b c").path == "/router/backends/a%2Fb%20c"


def test_a_weight_goes_in_tenths_and_stays_above_nothing() -> None:
    assert changes.weigh("a", server(0, weight=1.0), 1).body == {"weight": 1.1}
    assert changes.weigh("a", server(0, weight=0.1), -1).body == {"weight": 0.01}
    assert changes.weigh("a", server(0, weight=0.004), -1).body == {"weight": 0.004}
    assert changes.weigh("a", server(0, weight=0.004), 1).body == {"weight": 0.1}


def test_only_what_was_changed_is_sent_with_the_state_it_is_meant_for() -> None:
    one = server(0)
    change = changes.resize("a", one, {"capacity": "64", "weight": "1"}, write=True)
    assert change.body == {"max_concurrent_requests": 64, "write": True}
    assert change.match == '"1"'
    with pytest.raises(Mistyped, match="nothing was changed"):
        changes.resize("a", one, {"capacity": "32", "weight": "1.0"}, write=False)


def test_an_emptied_capacity_is_given_back_to_the_engine() -> None:
    values = {"capacity": "", "weight": "1"}
    change = changes.resize("a", server(0), values, write=False)
    assert change.body == {"max_concurrent_requests": None}
    assert changes.outcome(change, {}) == "a has the capacity of its engine"
    with pytest.raises(Mistyped, match="nothing was changed"):
        changes.resize("a", server(0, max_concurrent_requests=None), values, write=False)


@pytest.mark.parametrize(
    "values",
    [("0", "1"), ("x", "1"), ("1.5", "1"), ("9" * 4400, "1"), ("8", "-1"), ("8", "nan"),
     ("8", "9" * 4400)],
)  # fmt: skip
def test_what_is_no_number_is_not_sent(values: tuple[str, str]) -> None:
    with pytest.raises(Mistyped, match="is no") as raised:
        changes.resize(
            "a", server(0), dict(zip(("capacity", "weight"), values, strict=True)), write=False
        )
    assert len(str(raised.value)) < 80


def test_a_server_is_added_with_what_was_filled_in() -> None:
    values = {"url": "gpu9:8000", "name": "", "capacity": "8"}
    assert changes.add(values, write=False).body == {
        "url": "http://gpu9:8000",
        "max_concurrent_requests": 8,
    }
    with pytest.raises(Mistyped, match="address"):
        changes.add({"url": ""}, write=False)
    with pytest.raises(Mistyped, match="`name` may hold letters"):
        changes.add({**values, "name": "nine nine"}, write=False)


def test_the_mistakes_of_a_file_are_told_in_a_line_each_with_their_places() -> None:
    problems = [
        {"place": "/etc/servers.toml", "line": 13, "column": 6, "message": "Invalid\x1b value"},
        {"place": "/etc/servers.toml", "line": 15, "label": "warning", "message": "old"},
        {"place": "ROUTER_PORT", "line": None, "message": "no port", "hint": "1 to 65535"},
    ]
    refused = Refused("error: Invalid value\n --> servers.toml:13:6", 400, {"problems": problems})
    assert changes.why_not(refused).splitlines() == [
        "servers.toml:13:6: Invalid\\x1b value",
        "ROUTER_PORT: no port (1 to 65535)",
    ]
    assert changes.why_not(Refused("one\ntwo", 400, {})) == "one\ntwo"
    assert changes.why_not(Refused("no `url`", 400, {"problems": problems})) == "no `url`"


def test_the_outcome_says_what_was_changed_and_where_it_was_written() -> None:
    answer = {"changed": {"added": ["b"], "removed": [], "needs_restart": ["port"]}}
    assert changes.outcome(changes.reload(), answer).endswith("added: b; needs restart: port")
    assert changes.outcome(changes.reload(), {"changed": {}}).endswith("nothing has changed")
    removed = changes.outcome(changes.remove("a", write=True), {"written": "/etc/servers.toml"})
    assert removed == "a was removed; written to /etc/servers.toml"
