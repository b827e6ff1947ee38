"""What a reload has to do: which servers come, go and change, which settings need a restart."""

from __future__ import annotations

import pytest

from mvllm_router.config import SETTINGS, Config, ConfigDiff, Setting, changes, parse


def config(text: str) -> Config:
    return parse(text, environ={})


def test_the_same_configuration_changes_nothing() -> None:
    text = "servers = [{ url = 'http://a:1', models = { x = 'y' } }]\n[config]\nport = 1\n"
    assert not changes(config(text), config(text))


def test_another_order_or_spelling_changes_nothing() -> None:
    old = config("servers = ['http://a:1', 'http://b:1']")
    new = config("[servers]\nservers = [{ url = 'http://B:1/v1' }, 'http://a:1/']")
    assert changes(old, new) == ConfigDiff()


def test_servers_come_go_and_change_by_name() -> None:
    old = config("servers = ['http://gone:1', 'http://stays:1', 'http://a:1', 'http://b:1']")
    new = config(
        "servers = ['http://stays:1', { url = 'http://a:1', weight = 2, tags = ['x'] },"
        " { url = 'https://moved:1', name = 'b:1' }, 'http://new:1']"
    )
    diff = changes(old, new)
    assert diff.added == ("new:1",)
    assert diff.removed == ("gone:1",)
    assert diff.changed == {"a:1": ("weight", "tags"), "b:1": ("url",)}
    assert diff


def test_a_changed_secret_is_named_and_not_shown() -> None:
    old = config("servers = [{ url = 'http://a:1', api_key = 'sk-1' }]\n[config]\napi_key = 'sk-2'")
    new = config("servers = [{ url = 'http://a:1', api_key = 'sk-3' }]\n[config]\napi_key = 'sk-4'")
    diff = changes(old, new)
    assert diff == ConfigDiff(changed={"a:1": ("api_key",)}, live=("api_key",))
    assert "sk-" not in repr(diff)


def other_value(setting: Setting) -> str:
    """The setting's key with a value that is not its default, as TOML."""
    if setting.choices:
        return next(f'"{choice}"' for choice in setting.choices if choice != setting.default)
    if setting.type is bool:
        return "false" if setting.default else "true"
    if setting.type is tuple:
        return {"trusted_proxies": '["127.0.0.1"]', "cors_origins": '["*"]'}[setting.name]
    return {int: "7", float: "0.5", str: '"x"'}[setting.type]


# Those with a file come in a pair, and are tested with it.
ALONE = [setting for setting in SETTINGS if not setting.pem]


@pytest.mark.parametrize("setting", ALONE, ids=lambda setting: setting.name)
def test_a_changed_setting_is_live_or_needs_a_restart(setting: Setting) -> None:
    diff = changes(config(""), config(f"[config]\n{setting.name} = {other_value(setting)}\n"))
    effect = not setting.no_effect
    assert diff.live == ((setting.name,) if effect and setting.live else ())
    assert diff.needs_restart == ((setting.name,) if effect and not setting.live else ())
