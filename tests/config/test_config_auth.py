"""The table `[auth]`: keys of clients, and what is said of every mistake in it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from mvllm_router.config import (
    AUTH_KEYS,
    Config,
    ConfigError,
    KeySpec,
    Problem,
    changes,
    key_digest,
    load,
    parse,
)
from mvllm_router.config.auth_keys import AUTH_SOURCES, AuthKey


def entry(keys: str, name: str = "alice") -> str:
    return f'[[auth.keys]]\nname = "{name}"\n{keys}\n'


def keys(text: str, **environ: str) -> tuple[KeySpec, ...]:
    return parse(text, environ=environ).keys


def problems(text: str, path: Path | None = None, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, path, environ=environ)
    return caught.value.problems


def test_without_the_table_there_are_no_keys() -> None:
    assert parse("", environ={}).keys == ()
    assert parse("", environ={}).client_keys == ()


def test_both_ways_to_write_it_are_the_same() -> None:
    found = keys(entry("key = 'a'") + entry("key = 'b'", "bob"))
    table = "{ name = 'alice', key = 'a' }, { name = 'bob', key = 'b' }"
    assert found == keys(f"[auth]\nkeys = [{table}]") == keys(f"auth.keys = [{table}]")
    assert [one.name for one in found] == ["alice", "bob"]


def test_all_that_an_entry_can_say() -> None:
    text = entry(
        "key = 'secret'\nrequests_per_minute = 60\ntokens_per_minute = 1000\n"
        "max_concurrent_requests = 4\nmodels = ['a', 'b', 'a']\npriority = -10"
    )
    assert keys(text) == (KeySpec("alice", key_digest("secret"), 60, 1000, 4, ("a", "b"), -10),)
    (plain,) = keys(entry("key = 'secret'"))
    assert plain == KeySpec("alice", key_digest("secret"))


def test_the_setting_is_one_more_key_called_default() -> None:
    config = parse(entry("key = 'a'") + "[config]\napi_key = 'b'", environ={})
    assert [one.name for one in config.keys] == ["alice"]
    assert config.client_keys == (*config.keys, KeySpec("default", key_digest("b")))
    assert keys(entry("key = 'a'", "default")) == (KeySpec("default", key_digest("a")),)


def test_a_key_comes_from_the_environment() -> None:
    (found,) = keys(entry("key_env = 'ALICE_KEY'"), ALICE_KEY=" secret ")
    assert found.digest == key_digest("secret")


@pytest.mark.parametrize("content", ["secret", " secret\r\n\n", "\ufeffsecret\n"])
def test_a_key_comes_from_a_file_in_the_folder_of_the_configuration(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "alice.key").write_bytes(content.encode())
    for path in ("alice.key", tmp_path / "alice.key"):
        (tmp_path / "servers.toml").write_text(entry(f"key_file = '{path}'"))
        (found,) = load(tmp_path / "servers.toml", environ={}).keys
        assert found.digest == key_digest("secret")


def test_a_file_that_changes_is_read_anew_with_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(entry("key_file = 'alice.key'"))
    configs = []
    for secret in ("old", "new"):
        (tmp_path / "alice.key").write_text(secret)
        configs.append(load(file, environ={}))
    assert changes(*configs).keys == ("alice",)


def test_the_key_itself_is_not_kept() -> None:
    config = parse(entry("key = 'sk-1'"), environ={})
    assert "sk-1" not in repr(config)
    assert b"sk-1" not in pickle.dumps(config)
    assert repr(key_digest("sk-1")) not in repr(config)


@pytest.mark.parametrize(
    ("line", "message", "column"),
    [
        ("", "the entry has no key", 1),
        ("key = ''", "`key` must be a string that is not empty, but it is a string", 7),
        ("key = 3", "`key` must be a string that is not empty, but it is a whole number", 7),
        ('key = "a\\nb"', "`key` has a line break or another control character in it", 7),
        ("key = ' a'", "the key begins or ends with white space, which a header", 7),
        ("key = 'a'\nkey_env = 'B'", "both `key` and `key_env` are given", 11),
        ("key_env = 'B'\nkey_file = 'a'", "both `key_env` and `key_file` are given", 12),
        ("key_env = 'UNSET'", "the environment variable `UNSET` is not set", 11),
        ("key_env = 'EMPTY'", "the environment variable `EMPTY` is not set", 11),
        ("key_file = 'none'", "the file of `key_file` cannot be read: No such file", 12),
        ("key_file = '.'", "what `key_file` names is no file", 12),
        ("key = 'a'\nrequests_per_minute = 0", "must be a whole number from 1 to", 23),
        ("key = 'a'\ntokens_per_minute = 0.5", "must be a whole number from 1 to", 21),
        ("key = 'a'\nmax_concurrent_requests = '1'", "must be a whole number from 1 to", 27),
        ("key = 'a'\nmax_concurrent_requests = true", "must be a whole number from 1 to", 27),
        ("key = 'a'\nmodels = 'm'", "`models` must be an array", 10),
        ("key = 'a'\nmodels = ['m', 3]", "3 is in it", 16),
        ("key = 'a'\nmodels = []", "`models` allows none", 10),
        ("key = 'a'\nmodles = ['m']", "unknown key `modles`", 1),
        ("key = 'a'\napi_key = 'a'", "unknown key `api_key`", 1),
    ],
)
def test_mistakes_are_shown_where_they_are(line: str, message: str, column: int) -> None:
    (problem,) = problems(entry(line), EMPTY=" ")
    assert message in problem.message
    last = 1 if not line else 2 + len(line.splitlines())
    assert (problem.line, problem.column) == (last, column)
    assert problem.context == 'in auth.keys[0] (name = "alice")'


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("[auth]\nkeys = [\n'sk-1']", "a key must be a table, but it is a string", 3),
        ("auth = 3", "`auth` must be a table, but it is a whole number", 1),
        ("[[auth]]\nkeys = []", "`auth` must be a table, but it is an array", 1),
        ("[auth]\nkeys = 'sk-1'", "`keys` must be an array of tables, but it is a string", 2),
        ("[auth.keys]\nalice = 'sk-1'", "`keys` must be an array of tables, but it is", 1),
        ("[auth]\nkey = 'sk-1'", "unknown key `key`", 2),
        ("[auth]\nkyes = []", "unknown key `kyes`", 2),
        ("[auth]\nadmin_key = 'sk-1'", "unknown key `***`", 2),
        ("[[auth.keys]]\nkey = 'sk-1'", "the key has no `name`", 1),
        ("[[auth.keys]]\nname = 3\nkey = 'sk-1'", "`name` must be a string", 2),
        (entry("key = 'sk-1'", "a b"), "`name` may hold up to 64 letters, digits", 2),
        (entry("key = 'sk-1'", "x" * 65), "`name` may hold up to 64 letters, digits", 2),
        ("[authh]\nkeys = []", "unknown key `authh`", 1),
    ],
)
def test_mistakes_around_keys(text: str, message: str, line: int) -> None:
    found = [one for one in problems(text) if one.label == "error"]
    assert message in found[0].message
    assert found[0].line == line
    assert len(found) == 1
    assert "sk-1" not in str(ConfigError(found))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[auth]\nkeys = ['sk-1']", 'write { name = "alice", key_env = "ALICE_KEY" }'),
        ("[auth]\nkeys = 'x'", 'write keys = [ { name = "alice", key_env = "ALICE_KEY" } ]'),
        ("[auth]\nkey = 'x'", "the keys of an entry stand in keys = [ { ... } ], or under"),
        ("[auth]\nkyes = []", "did you mean `keys`?"),
        ("[auth]\napi_key = 'x'", "it belongs under [config]"),
        ("[auth]\nadmin_key = 'x'", "it belongs under [config]"),
        ("[authh]", "did you mean `auth`?"),
        ("[[auth.keys]]\nkey = 'x'", "metrics and errors call it by its name"),
        (entry(""), "give one of `key`, `key_env` and `key_file`"),
        (entry("key = 'a'\nkey_env = 'B'"), "keep one of them"),
        (entry("key_env = 'B'"), "`key_env` names the variable that holds the key"),
        (entry("key_file = 'b'"), "`key_file` names a file that holds the key and nothing else"),
        (entry("key = 'a'\nmodels = []"), "leave it out to allow all"),
        (entry("key = 'a'\nmodels = 'm'"), 'write models = ["m"]'),
        (entry("key = 'a'\nrequests_per_min = 1"), "did you mean `requests_per_minute`?"),
        (entry("api_key = 'a'"), "did you mean `key`?"),
        (entry("key = 'a'", "a b"), 'for instance "a-b"'),
    ],
)
def test_hints(text: str, hint: str) -> None:
    found = problems(text)
    assert any((one.hint or "").startswith(hint) for one in found), [one.hint for one in found]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "the file of `key_file` is empty"),
        (b"x" * 10_000, "the file of `key_file` is too long"),
        (b"\xff\xfe", "the file of `key_file` is not UTF-8"),
        (b"a\nb", "has a line break or another control character in it"),
    ],
)
def test_a_file_that_holds_no_key_is_a_mistake(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "alice.key").write_bytes(content)
    (problem,) = problems(entry("key_file = 'alice.key'"), tmp_path / "servers.toml")
    assert message in problem.message
    assert (problem.line, problem.column) == (3, 12)


def test_two_keys_of_one_name_are_a_mistake_that_names_both_lines() -> None:
    (problem,) = problems(entry("key = 'a'") + entry("key = 'b'"))
    assert problem.message == "two keys have the name `alice`"
    assert (problem.line, problem.hint) == (5, "the other one is at line 1")


@pytest.mark.parametrize("source", ["key = 'sk-1'", "key_env = 'KEY'", "key_file = 'the.key'"])
def test_two_keys_of_one_value_are_a_mistake_wherever_it_comes_from(
    source: str, tmp_path: Path
) -> None:
    (tmp_path / "the.key").write_text("sk-1\n")
    text = entry("key = 'sk-1'") + entry(source, "bob")
    (problem,) = problems(text, tmp_path / "servers.toml", KEY="sk-1")
    assert problem.message == "the key `bob` is the same as another one"
    assert (problem.line, problem.hint) == (6, "the other one is at line 1")
    assert "sk-1" not in problem.render()


@pytest.mark.parametrize("setting", ["api_key", "admin_key"])
def test_a_key_of_a_client_may_not_be_that_of_a_setting(setting: str) -> None:
    hint = f"the other one is the setting `{setting}`"
    text = entry("key = 'sk-1'")
    for found in (
        problems(f"{text}[config]\n{setting} = 'sk-1'"),
        problems(text, **{f"ROUTER_{setting.upper()}": "sk-1"}),
    ):
        (problem,) = found
        assert (problem.line, problem.hint) == (3, hint)


def test_the_name_of_the_setting_is_taken_while_it_is_there() -> None:
    (problem,) = problems(entry("key = 'a'", "default"), ROUTER_API_KEY="b")
    assert problem.message == "two keys have the name `default`"
    assert problem.hint == "the key of the setting `api_key` is called `default`"


def test_operators_and_clients_may_not_have_the_same_key() -> None:
    (problem,) = problems("[config]\napi_key = 'sk-1'\nadmin_key = 'sk-1'")
    assert problem.message == "`admin_key` is the same as `api_key`"
    assert problem.line == 3
    (problem,) = problems("[config]\napi_key = 'sk-1'", ROUTER_ADMIN_KEY="sk-1")
    assert (problem.place, problem.line) == ("ROUTER_ADMIN_KEY", None)


@pytest.mark.parametrize("text", ["[auth]", "[auth]\nkeys = []", "auth = {}"])
def test_a_table_without_a_key_is_warned_of_since_it_keeps_nobody_out(text: str) -> None:
    (warning,) = parse(text, environ={}).warnings
    assert warning.label == "warning"
    assert warning.message == "there is no key in [auth], so that everybody may come in"
    assert warning.line == 1
    assert parse(text, environ={"ROUTER_API_KEY": "x"}).warnings == ()


@pytest.mark.parametrize("key", AUTH_KEYS, ids=lambda key: key.name)
def test_the_example_of_every_key_is_right(key: AuthKey, tmp_path: Path) -> None:
    (tmp_path / "alice.key").write_text("secret")
    needed = {"name": 'name = "a"', "key": 'key = "b"'}
    if key.name in AUTH_SOURCES:
        needed.pop("key")
    needed[key.name] = f"{key.name} = {key.example}"
    text = "[[auth.keys]]\n" + "\n".join(needed.values())
    path = tmp_path / "servers.toml"
    assert len(parse(text, path, environ={"ALICE_KEY": "x"}).keys) == 1


LEAKS = {
    "next to a problem": entry("key = 'sk-1'\nbad = 1"),
    "wrong type": entry("key = ['sk-1']"),
    "control character": entry('key = "sk-1\\n"'),
    "white space": entry("key = 'sk-1 '"),
    "misspelt key": entry("kye = 'sk-1'"),
    "key of no known name": entry("bearer = 'sk-1'"),
    "digits under no known name": "[auth]\nkeys = [{ name = 'a', password = 71337, bad = 1 }]",
    "in place of a number": entry("key = 'a'\nrequests_per_minute = { x = 'sk-1' }"),
    "in place of its variable": entry("key_env = 'sk-1'"),
    "in place of its file": entry("key_file = 'sk-1'"),
    "in the line of its file": "auth.keys = [{ name = 'a', key_file = 'x/sk-1', bad = 1 }]",
    "plain text": "[auth]\nkeys = ['sk-1']",
    "text in place of the list": "[auth]\nkeys = 'sk-1'",
    "text in place of the table": "auth = 'sk-1'",
    "list in place of the table": "auth = ['sk-1']",
    "keys by name": "[auth]\nkeys = { alice = 'sk-1' }",
    "keys by name in a table": "[auth.keys]\nalice = 'sk-1'",
    "names by key": "[auth]\nkeys = { sk-1 = 'alice' }",
    "names by key in a table": "[auth.keys]\nsk-1 = 'alice'",
    "names by key in the list": "auth.keys = [{ sk-1 = 'alice' }]",
    "a table for each key": "[auth.keys.sk-1]\nname = 'alice'",
    "a table for each key beside": "[auth]\nkeys = []\n[auth.sk-1]\nname = 'alice'",
    "the same key twice": entry("key = 'sk-1'") + entry("key = 'sk-1'", "bob"),
    "no TOML: no quotes": entry("key = sk-1"),
    "no TOML: no closing quote": entry("key = 'sk-1"),
    "no TOML: no equals sign": entry("key sk-1"),
    "no TOML: no comma": "[auth]\nkeys = [{ name = 'a', key = 'sk-1' models = ['m'] }]",
    "no TOML: no comma between two": "[auth]\nkeys = ['sk-1' 'sk-1']",
    "no TOML: after a limit": "auth.keys = [{ requests_per_minute = 5 key = 'sk-1' }]",
    "no TOML: after tokens": "auth.keys = [{ tokens_per_minute = 5 key = 'sk-1' }]",
    "no TOML: a file": entry("key_file = sk-1"),
    "no TOML: YAML": "auth:\n  keys:\n    - key: sk-1",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS.keys())
def test_no_secret_is_ever_shown(text: str, tmp_path: Path) -> None:
    rendered = str(ConfigError(problems(text, tmp_path / "servers.toml")))
    assert "sk-1" not in rendered
    assert "71337" not in rendered


def test_harmless_values_are_shown() -> None:
    shown = "{ name = 'a', key_env = 'KEY', models = ['m'], tokens_per_minute = 5"
    (problem,) = problems(f"auth.keys = [{shown}, x = 1 }}]", KEY="secret")
    assert problem.source_line == f"auth.keys = [{shown}, *** = *** }}]"
    text = entry("key = 'a'\nrequests_per_minute = 5\nmodels = ['m'] x")
    assert problems(text)[0].source_line == "models = ['m'] x"


# --- what a reload has to do


def test_keys_that_come_go_and_change_are_named_and_never_shown() -> None:
    def made(*specs: KeySpec) -> Config:
        return replace(parse("", environ={}), keys=specs)

    stays, goes = KeySpec("stays", b"1"), KeySpec("goes", b"2")
    limited, other = KeySpec("limited", b"3"), KeySpec("other", b"sk-1")
    old = made(stays, goes, limited, other)
    new = made(
        replace(other, digest=b"sk-2"),
        stays,
        KeySpec("comes", b"5"),
        replace(limited, models=("m",)),
    )
    diff = changes(old, new)
    assert set(diff.keys) == {"goes", "comes", "limited", "other"}
    assert diff
    assert "sk-" not in repr(diff)
    assert not changes(old, old)
    assert not changes(made(stays, goes), made(goes, stays))
