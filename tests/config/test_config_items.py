"""Settings that are arrays: how they are written, and what their elements may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mvllm_router.config import SETTINGS, ConfigError, Mismatch, Setting, Settings, load, parse
from mvllm_router.config.items import network, origin
from mvllm_router.config.rules import Rule

ARRAYS = [setting for setting in SETTINGS if setting.type is tuple]
RULE = Rule(name="things", type=tuple, unit="things")


def only_problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ={})
    (problem,) = caught.value.problems
    return problem.render()


def settings(text: str) -> Settings:
    return parse(f"[config]\n{text}\n", environ={}).settings


def test_an_array_of_the_file_keeps_its_order_and_each_element_once() -> None:
    assert RULE.check(["b", "a", "b"]) == ("b", "a")
    assert RULE.check([]) == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("a", ("a",)), (" a , b,,", ("a", "b")), ("", ()), (" , ", ()), ("b,a,b", ("b", "a"))],
)
def test_a_text_of_the_environment_is_split_at_commas(text: str, value: tuple[str, ...]) -> None:
    assert RULE.read(text) == value


@pytest.mark.parametrize("value", [3, True, {}, None])
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(Mismatch, match="`things` must be an array of things, but it is"):
        RULE.check(value)


@pytest.mark.parametrize("value", [["a", 3], ["a", ""], ["a", ["b"]], ["a", None]])
def test_an_element_that_is_no_text_is_named(value: list[object]) -> None:
    with pytest.raises(Mismatch, match=r"must be an array of things, but .* is in it") as caught:
        RULE.check(value)
    assert caught.value.item == 1


def test_a_single_text_in_the_file_gets_a_hint() -> None:
    text = only_problem('[config]\ntrusted_proxies = "127.0.0.1"\n')
    assert 'must be an array of networks, but it is "127.0.0.1"' in text
    assert 'write trusted_proxies = ["127.0.0.1"]' in text


def test_the_wrong_element_is_pointed_at() -> None:
    assert only_problem('[config]\ntrusted_proxies = [\n  "10.0.0.0/8",\n  "x",\n]\n') == (
        'error: `trusted_proxies` must be an array of networks, but "x" is none\n'
        " --> servers.toml:4:3\n"
        "  |\n"
        '4 |   "x",\n'
        "  |   ^^^\n"
        '  = write it like "10.0.0.0/8" or "127.0.0.1"'
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("trusted_proxies", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1/128")),
        ("cors_origins", "https://a.example,*", ("https://a.example", "*")),
    ],
)
def test_arrays_come_from_the_environment_too(name: str, text: str, value: tuple[str, ...]) -> None:
    config = load(None, environ={f"ROUTER_{name.upper()}": text})
    assert getattr(config.settings, name) == value


@pytest.mark.parametrize("setting", ARRAYS, ids=lambda setting: setting.name)
def test_a_wrong_element_of_the_environment_is_a_problem_of_its_variable(setting: Setting) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ={setting.variable: "nonsense!"})
    (problem,) = caught.value.problems
    assert (problem.place, problem.line) == (setting.variable, None)
    assert '"nonsense!" is none' in problem.message


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("::1", "::1/128"),
        ("FD00::/8", "fd00::/8"),
    ],
)
def test_networks(text: str, spelling: str) -> None:
    assert network(text) == spelling


def test_a_network_that_is_wider_than_it_looks_is_refused() -> None:
    with pytest.raises(Mismatch) as caught:
        network("10.1.2.3/8")
    assert caught.value.hint == 'did you mean "10.0.0.0/8"?'


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("*", "*"),
        ("https://chat.example.com", "https://chat.example.com"),
        ("HTTPS://Chat.Example.com/", "https://chat.example.com"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("https://a.example:80", "https://a.example:80"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origins_are_spelt_as_browsers_do(text: str, spelling: str) -> None:
    assert origin(text) == spelling


@pytest.mark.parametrize("check", [network, origin])
@pytest.mark.parametrize(
    "text",
    [
        "x",
        "a.example",
        "https://",
        "https://a.example/path",
        "https://a.example?x",
        "https://a b",
        "https://user@a.example",
        "https://*.example",
        "https://a.example\r\nx: y",
        "https://grün.example",
        "null",
        "10.0.0.0/33",
        "1.2.3",
    ],
)
def test_what_is_neither_is_refused(check: Callable[[str], str], text: str) -> None:
    with pytest.raises(Mismatch, match="is none") as caught:
        check(text)
    assert caught.value.hint
