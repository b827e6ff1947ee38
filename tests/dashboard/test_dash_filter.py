"""The words behind `/`."""

from __future__ import annotations

import pytest
from dash_kit import servers

from mvllm_router.dashboard.filter import matches, parse


def found(typed: str, *, faults_only: bool = False) -> list[int]:
    shown = servers(9)
    words = parse(typed)
    return [n for n, one in enumerate(shown) if matches(one, words, faults_only=faults_only)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("gpu-03", [3]),
        ("GPU-03", [3]),
        ("!gpu", []),
        ("state:down", [5]),
        ("state:up", [0, 1, 2]),
        ("engine:llama state:up", [2]),
        ("model:llama-3.3 !state:up", [3, 5, 7]),
        ("llama", [1, 2, 3, 5, 7, 8]),
        ("tag:zone=a !0", []),
        ("nonsense:x", []),
        ("!", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_all_words_have_to_hold(typed: str, expected: list[int]) -> None:
    assert found(typed) == expected


def test_faults_are_all_that_is_not_up() -> None:
    assert found("", faults_only=True) == [3, 4, 5, 6, 7, 8]
    assert found("state:up", faults_only=True) == []


def test_an_address_is_found_though_it_has_a_colon() -> None:
    assert found("10.0.0.4:8000") == [4]
