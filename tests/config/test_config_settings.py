"""The table of settings and the rules that its values obey, wherever they come from."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mvllm_router.config import (
    POLICY_NAMES,
    SETTINGS,
    ConfigError,
    Mismatch,
    Override,
    Setting,
    Settings,
    load,
    parse,
)
from mvllm_router.config.rules import Rule

BY_NAME = {setting.name: setting for setting in SETTINGS}
NUMBERS = [setting for setting in SETTINGS if setting.type in (int, float)]
WRONG_TYPE: dict[type, str] = {bool: "1", int: "true", float: "true", str: "1", tuple: "1"}
ELEMENTS = {"trusted_proxies": "10.0.0.0/8", "cors_origins": "https://a.example"}

# What users rely on: see the documentation of servers.toml.
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8888,
    "policy": "least_load",
    "api_key": "",
    "admin_key": "",
    "open_metrics": False,
    "tls_cert": "",
    "tls_key": "",
    "trusted_proxies": (),
    "cors_origins": (),
    "first_byte_timeout": 0.0,
    "header_timeout": 30.0,
    "request_timeout": 300.0,
    "connect_timeout": 5.0,
    "max_retries": 3,
    "max_body_size": 67108864,
    "enforce_capacity": False,
    "max_queue": 0,
    "hide_upstream_errors": False,
    "learn": True,
    "allow_policy_header": False,
    "queue_timeout": 60.0,
    "priority_ageing": 5.0,
    "scrape_interval": 1.0,
    "health_check_interval": 10.0,
    "health_check_timeout": 5.0,
    "enable_active_health_check": True,
    "health_check_max_response_time": 10.0,
    "health_check_min_success_rate": 0.8,
    "health_check_window_size": 10,
    "health_check_consecutive_failures": 3,
    "failure_threshold": 5,
    "failure_window": 30.0,
    "auto_recovery_threshold": 60.0,
    "shutdown_timeout": 30.0,
    "log_level": "info",
    "log_format": "text",
    "log_file": "",
    "config_reload_interval": 60.0,
}
RESTART = {"host", "port", "tls_cert", "tls_key", "log_format", "log_file"}


def ids(setting: Setting) -> str:
    return setting.name


def only_problem(text: str, **more: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ={}, **more)  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    return problem.render()


def test_names_and_defaults_are_what_users_rely_on() -> None:
    settings = Settings()
    assert {one.name: getattr(settings, one.name) for one in fields(Settings)} == DEFAULTS
    assert {name: type(BY_NAME[name].default) for name in DEFAULTS} == {
        name: type(value) for name, value in DEFAULTS.items()
    }


def test_settings_that_need_a_restart() -> None:
    assert {setting.name for setting in SETTINGS if not setting.live} == RESTART


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_every_setting_is_explained_and_its_default_obeys_its_own_rule(setting: Setting) -> None:
    assert setting.doc.endswith(".")
    assert setting.check(setting.default) == setting.default


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_a_value_of_the_wrong_type_is_refused_in_the_file(setting: Setting) -> None:
    text = only_problem(f"[config]\n{setting.name} = {WRONG_TYPE[setting.type]}\n")
    assert f"`{setting.name}` must be {setting.expected()}, but it is " in text
    assert f"servers.toml:2:{len(setting.name) + 4}" in text


@pytest.mark.parametrize("setting", [one for one in NUMBERS if one.minimum is not None], ids=ids)
def test_a_number_below_the_minimum_is_refused_and_the_minimum_is_not(setting: Setting) -> None:
    assert setting.minimum is not None
    assert setting.check(setting.type(setting.minimum)) == setting.minimum
    with pytest.raises(Mismatch, match=f"`{setting.name}` must be .* but it is"):
        setting.check(setting.type(setting.minimum - 1))


@pytest.mark.parametrize("setting", [one for one in NUMBERS if one.maximum is not None], ids=ids)
def test_a_number_above_the_maximum_is_refused_and_the_maximum_is_not(setting: Setting) -> None:
    assert setting.maximum is not None
    assert setting.check(setting.type(setting.maximum)) == setting.maximum
    with pytest.raises(Mismatch, match="but it is"):
        setting.check(setting.type(setting.maximum + 1))


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.type is float], ids=ids)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_time_without_end_is_refused(setting: Setting, value: float) -> None:
    with pytest.raises(Mismatch):
        setting.check(value)


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.unit == "seconds"], ids=ids)
def test_whole_seconds_become_a_float(setting: Setting) -> None:
    value = setting.check(7)
    assert value == 7.0
    assert isinstance(value, float)


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.choices], ids=ids)
def test_choices_are_taken_in_any_case(setting: Setting) -> None:
    for choice in setting.choices:
        assert setting.check(choice.upper()) == choice
    with pytest.raises(Mismatch, match="must be one of"):
        setting.check("none of them")


def test_policies_are_the_choices_of_the_policy() -> None:
    assert BY_NAME["policy"].choices == POLICY_NAMES


def test_a_choice_misspelt_gets_the_nearest_one() -> None:
    assert "did you mean `least_load`?" in only_problem('[config]\npolicy = "leastload"\n')


def test_a_number_in_quotes_gets_a_hint() -> None:
    assert "write it without quotes" in only_problem('[config]\nport = "8000"\n')


def test_the_predecessors_smallest_values_are_still_taken() -> None:
    ones = [
        "health_check_interval",
        "config_reload_interval",
        "request_timeout",
        "health_check_timeout",
        "failure_threshold",
        "auto_recovery_threshold",
        "health_check_window_size",
        "health_check_consecutive_failures",
    ]
    text = "[config]\n" + "".join(f"{name} = 1\n" for name in ones)
    text += "max_retries = 0\nhealth_check_min_success_rate = 0\n"
    settings = parse(text, environ={}).settings
    assert {getattr(settings, name) for name in ones} == {1}


def test_a_key_without_effect_is_a_warning_with_its_place() -> None:
    config = parse("[config]\nconfig_reload_interval = 10\n", environ={})
    (warning,) = config.warnings
    assert warning.label == "warning"
    assert (warning.line, warning.column) == (2, 1)
    assert warning.render().startswith("warning: `config_reload_interval` has no effect")


# Those with a file come in a pair; test_config_tls.py has them.
@pytest.mark.parametrize("setting", [one for one in SETTINGS if not one.pem], ids=ids)
def test_every_setting_can_come_from_the_environment(setting: Setting) -> None:
    texts = {bool: "no", int: "7", float: "0.5", str: "abc"}
    text = ELEMENTS.get(setting.name) or texts[setting.type]
    if setting.default is False:
        text = "yes"
    if setting.choices:
        text = setting.choices[-1].upper()
    config = load(None, environ={setting.variable: f" {text}\n"})
    expected = setting.read(text)
    assert setting.variable == f"ROUTER_{setting.name.upper()}"
    assert getattr(config.settings, setting.name) == expected != setting.default
    assert config.origins[setting.name] == "environment"


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("YES", True), ("False", False), ("0", False), ("no", False)],
)
def test_booleans_of_the_environment(text: str, value: bool) -> None:
    config = load(None, environ={"ROUTER_ENABLE_ACTIVE_HEALTH_CHECK": text})
    assert config.settings.enable_active_health_check is value


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROUTER_PORT", "abc"),
        ("ROUTER_PORT", "70000"),
        ("ROUTER_REQUEST_TIMEOUT", "nan"),
        ("ROUTER_ENABLE_ACTIVE_HEALTH_CHECK", "maybe"),
        ("ROUTER_LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_variable_is_named_as_the_place(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ={variable: value})
    (problem,) = caught.value.problems
    assert (problem.place, problem.line) == (variable, None)
    assert value in problem.message


def test_an_empty_variable_counts_as_unset() -> None:
    config = load(None, environ={"ROUTER_PORT": "", "ROUTER_API_KEY": " "})
    assert config.settings == Settings()
    assert set(config.origins.values()) == {"default"}


def test_a_port_that_kubernetes_set_is_explained() -> None:
    with pytest.raises(ConfigError, match="enableServiceLinks"):
        load(None, environ={"ROUTER_PORT": "tcp://10.0.0.1:8888"})


def test_flag_beats_environment_beats_file_beats_default() -> None:
    text = "[config]\nport = 1\nmax_retries = 1\nmax_queue = 1\n"
    environ = {"ROUTER_PORT": "2", "ROUTER_MAX_RETRIES": "2"}
    config = parse(text, overrides={"port": Override("3", "flag", "--port")}, environ=environ)
    settings = config.settings
    assert (settings.port, settings.max_retries, settings.max_queue) == (3, 2, 1)
    names = ("port", "max_retries", "max_queue", "host")
    assert [config.origins[name] for name in names] == ["flag", "environment", "file", "default"]
    assert [config.places.get(name) for name in names] == [
        "--port",
        "ROUTER_MAX_RETRIES",
        "servers.toml:4",
        None,
    ]


def test_a_flag_is_checked_like_any_value_and_named_as_the_place() -> None:
    rendered = only_problem("", overrides={"port": Override(70000, "flag", "--port")})
    assert "but it is 70000\n  --> --port" in rendered


def test_a_mistake_in_the_file_is_told_though_a_flag_overrides_it() -> None:
    overrides = {"port": Override(1, "flag", "--port")}
    assert "servers.toml:2:8" in only_problem('[config]\nport = "x"\n', overrides=overrides)


def test_an_override_of_no_setting_is_a_bug_of_the_caller() -> None:
    with pytest.raises(KeyError, match="prot"):
        load(None, overrides={"prot": Override(1, "flag", "--prot")}, environ={})


def test_the_routers_own_key_stays_out_of_representations() -> None:
    config = parse('[config]\napi_key = "sk-1"\n', environ={})
    assert config.settings.api_key == "sk-1"
    assert "sk-1" not in repr(config)


def test_a_key_with_a_line_break_is_refused_without_showing_it() -> None:
    text = only_problem('[config]\napi_key = "sk-1\\nX-Evil: 1"\n')
    assert "control character" in text
    assert "sk-1" not in text


def test_a_secret_of_the_wrong_type_is_told_by_its_type_only() -> None:
    text = only_problem("[config]\napi_key = 12345\n")
    assert "must be a string, but it is a whole number" in text
    assert "12345" not in text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(type=bool), "true or false"),
        (Rule(type=int), "a whole number"),
        (Rule(type=int, minimum=1), "a whole number, 1 or more"),
        (Rule(type=float, minimum=0, maximum=1), "a number from 0 to 1"),
        (Rule(type=float, minimum=0.1, unit="seconds"), "a number of seconds, 0.1 or more"),
        (Rule(type=str, minimum=1), "a string that is not empty"),
        (Rule(type=str, choices=("a", "b")), 'one of "a", "b"'),
        (Rule(type=tuple, unit="networks"), "an array of networks"),
    ],
)
def test_what_is_expected_is_said_in_words(rule: Rule, words: str) -> None:
    assert rule.expected() == words


def test_long_and_strange_values_are_shown_short_and_on_one_line() -> None:
    with pytest.raises(Mismatch) as caught:
        Rule(name="port", type=int).check("\x1b[31m\n" + "x" * 500)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120
