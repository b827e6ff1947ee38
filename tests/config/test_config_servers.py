"""Entries of servers: every shape they may have, and every mistake with its place."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from mvllm_router.config import (
    ENGINE_ALIASES,
    ENGINE_NAMES,
    SERVER_KEYS,
    ConfigError,
    Problem,
    ServerSpec,
    load,
    parse,
    server_from,
)
from mvllm_router.config.server_keys import ServerKey

PREDECESSOR = """\
[servers]
servers = [
    { url = "http://gpu-server-1:8081", max_concurrent_requests = 3 },
    { url = "http://gpu-server-2:8088", max_concurrent_requests = 5 },
]

[config]
health_check_interval = 10
request_timeout = 120
max_retries = 3
"""


def entry(keys: str) -> str:
    return f'[[servers]]\nurl = "http://a:1"\n{keys}\n'


def server(keys: str, **environ: str) -> ServerSpec:
    (found,) = parse(entry(keys), environ=environ).servers
    return found


def problems(text: str, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ=environ)
    return caught.value.problems


def test_the_predecessors_file_works_unchanged() -> None:
    config = parse(PREDECESSOR, environ={})
    assert [(one.url, one.max_concurrent_requests) for one in config.servers] == [
        ("http://gpu-server-1:8081", 3),
        ("http://gpu-server-2:8088", 5),
    ]
    assert config.settings.request_timeout == 120.0
    assert config.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        '[servers]\nservers = [{ url = "http://a:1" }, { url = "http://b:2" }]',
        '[servers]\nservers = ["http://a:1", "http://b:2"]',
        'servers = ["http://a:1", { url = "http://b:2" }]',
        '[[servers]]\nurl = "http://a:1"\n[[servers]]\nurl = "http://b:2"',
        '[[servers.servers]]\nurl = "http://a:1"\n[[servers.servers]]\nurl = "http://b:2"',
    ],
)
def test_all_shapes_of_the_list_say_the_same(text: str) -> None:
    servers = parse(text, environ={}).servers
    assert servers == (ServerSpec("http://a:1", "a:1"), ServerSpec("http://b:2", "b:2"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "[servers]\n", "[servers]\nservers = []\n"])
def test_a_router_may_start_with_no_server(text: str) -> None:
    assert parse(text, environ={}).servers == ()


def test_every_key_of_a_server_arrives() -> None:
    text = """
    name = "big"
    engine = "vllm"
    max_concurrent_requests = 7
    weight = 2
    models = ["m1", "m2", "m1"]
    api_key = "sk-1"
    headers = { X-Team = "research" }
    tls_verify = false
    tags = ["a100"]
    """
    assert server(text) == ServerSpec(
        url="http://a:1",
        name="big",
        engine="vllm",
        max_concurrent_requests=7,
        weight=2.0,
        models=("m1", "m2"),
        api_key="sk-1",
        headers=(("X-Team", "research"),),
        tls_verify=False,
        tags=("a100",),
    )


def test_models_as_a_table_are_aliases_and_override_nothing() -> None:
    found = server('models = { "gpt-4o" = "Qwen/Qwen3-8B" }')
    assert found.models == ()
    assert found.aliases == {"gpt-4o": "Qwen/Qwen3-8B"}


@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_engines(name: str) -> None:
    assert server(f'engine = "{name.upper()}"').engine == name


@pytest.mark.parametrize(("alias", "name"), ENGINE_ALIASES.items())
def test_other_names_of_engines(alias: str, name: str) -> None:
    assert server(f'engine = "{alias}"').engine == name
    assert name in ENGINE_NAMES


def test_the_key_can_come_from_the_environment() -> None:
    assert server('api_key_env = "GPU_KEY"', GPU_KEY="sk-1\n").api_key == "sk-1"


def test_secrets_stay_out_of_representations_and_values_survive_pickling() -> None:
    found = server('api_key = "sk-1"\nheaders = { X-Key = "sk-2" }\nmodels = { a = "b" }')
    assert "sk-" not in repr(found)
    assert pickle.loads(pickle.dumps(found)) == found
    assert len({found, pickle.loads(pickle.dumps(found))}) == 1


MISTAKES = {
    "max_concurency = 4": "unknown key `max_concurency`",
    "is_healthy = true": "unknown key `is_healthy`",
    'name = ""': "`name` must be a string that is not empty",
    'name = "a b"': "`name` may hold letters",
    'name = ".."': "`name` may hold letters",
    "name = 3": "`name` must be a string",
    f'name = "{"a" * 65}"': "`name` must be a string",
    'engine = "vlm"': "`engine` must be one of",
    "engine = 1": "`engine` must be one of",
    "max_concurrent_requests = 0": "whole number from 1 to",
    "max_concurrent_requests = true": "but it is true",
    "max_concurrent_requests = 2.5": "but it is 2.5",
    "weight = 0": "but it is 0",
    "weight = -1.5": "but it is -1.5",
    "weight = inf": "but it is inf",
    'models = "m"': '`models` must be an array of names, or a table { "alias" = "model" }',
    'models = ["m", 3]': "but 3 is in it",
    'models = [""]': 'but "" is in it',
    'models = { m = "" }': "the alias `m`",
    "models = { m = 3 }": "the alias `m`",
    "api_key = 3": "`api_key` must be",
    'api_key = ""': "`api_key` must be",
    'api_key = "a\\r\\nb"': "control character",
    'api_key_env = "NO_SUCH"': "the environment variable `NO_SUCH` is not set",
    'api_key_env = "EMPTY"': "the environment variable `EMPTY` is not set",
    'api_key_env = "BROKEN"': "control character",
    'headers = ["A: b"]': "`headers` must be a table, but it is an array",
    "headers = { A = 1 }": "the header `A` must be a string, but it is a whole number",
    'headers = { "A b" = "x" }': "`A b` cannot be the name of a header",
    'headers = { A = "x\\ny" }': "the header `A` has a line break",
    'headers = { Content-Length = "1" }': "the router sets the header `Content-Length` itself",
    'headers = { X-a = "1", x-A = "2" }': "the header `x-A` is given twice",
    'tls_verify = "no"': "`tls_verify` must be true or false",
    'tags = "a"': "`tags` must be an array of strings",
    "tags = [1]": "but 1 is in it",
}


@pytest.mark.parametrize(("keys", "message"), MISTAKES.items())
def test_a_mistake_is_told_with_its_line_and_its_server(keys: str, message: str) -> None:
    (problem,) = problems(entry(keys), EMPTY="", BROKEN="a\nb")
    assert message in problem.message
    assert problem.line == 3
    assert problem.context == 'in servers[0] (url = "http://a:1")'


def test_two_ways_to_give_a_key_exclude_each_other() -> None:
    (problem,) = problems(entry('api_key = "x"\napi_key_env = "Y"'), Y="z")
    assert "both `api_key` and `api_key_env`" in problem.message
    (problem,) = problems(entry('api_key = "x"\nheaders = { authorization = "z" }'))
    assert "only one can be sent" in problem.message


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ("max_concurency = 4", "did you mean `max_concurrent_requests`?"),
        ("wieght = 4", "did you mean `weight`?"),
        ("request_timeout = 4", "it is a setting of the router, and belongs under [config]"),
        ('engine = "vlm"', "did you mean `vllm`?"),
        ('name = "a b"', 'for instance "a-b"'),
        ('models = "m"', 'write models = ["m"]'),
    ],
)
def test_hints(keys: str, hint: str) -> None:
    (problem,) = problems(entry(keys))
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("servers = [\n3]", "a server must be a table or a URL, but it is a whole number", 2),
        ("servers = [\n{ name = 'a' }]", "the server has no `url`", 2),
        ("[[servers]]\nname = 'a'", "the server has no `url`", 1),
        ("servers = [\n'gpu1:8000']", "does not begin with http", 2),
        ("servers = [\n{ url = 3 }]", "`url` must be a string", 2),
        ("servers = 'x'", "`servers` must be an array of servers, but it is a string", 1),
        ("[servers]\nservers = {}", "`servers` must be an array of servers", 2),
        ("[servers]\nurl = 'http://a:1'", "unknown key `url`", 2),
        ("\nserver = []", "unknown key `server`", 2),
        ("\nport = 1", "unknown key `port`", 2),
        ("config = 3", "`config` must be a table, but it is a whole number", 1),
        ("[config]\nweight = 3", "unknown key `weight`", 2),
    ],
)
def test_mistakes_around_servers(text: str, message: str, line: int) -> None:
    (problem,) = problems(text)
    assert message in problem.message
    assert problem.line == line


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[servers]\nurl = 'http://a:1'", "a server's keys stand in"),
        ("[servers]\nport = 1", "it belongs under [config]"),
        ("[servers]\nserver = []", "did you mean `servers`?"),
        ("port = 1", "it belongs under [config]"),
        ("[confg]", "did you mean `config`?"),
        ("[config]\nweight = 3", "it is a key of a server"),
        ("[config]\nmax_retrys = 3", "did you mean `max_retries`?"),
    ],
)
def test_hints_around_servers(text: str, hint: str) -> None:
    (problem,) = problems(text)
    assert problem.hint
    assert problem.hint.startswith(hint)


def test_the_same_url_twice_names_both_lines() -> None:
    (problem,) = problems("servers = [\n'http://a:1',\n\n'HTTP://A:1/v1/',\n]")
    assert problem.message == "two servers have the URL `http://a:1`"
    assert problem.line == 4
    assert problem.hint == "the other one is at line 2"


def test_the_same_name_twice_names_both_lines() -> None:
    text = entry('name = "x"') + '[[servers]]\nurl = "http://b:2"\nname = "x"\n'
    (problem,) = problems(text)
    assert problem.message == "two servers have the name `x`"
    assert problem.line == 6
    assert problem.hint == "the other one is at line 1"


def test_a_name_may_not_be_another_servers_default_name() -> None:
    (problem,) = problems("servers = ['http://a:1', { url = 'http://b:2', name = 'a:1' }]")
    assert problem.message == "two servers have the name `a:1`"


def test_all_problems_are_told_at_once_in_the_order_of_lines() -> None:
    text = (
        "[config]\nport = 0.5\nmax_retrys = 1\n"
        "[[servers]]\nurl = 'x'\nwieght = 1\n[[servers]]\nurl = 'http://a:1'\nweight = 0\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, urls=["nonsense"], max_load=[0], environ={"ROUTER_PORT": "x"})
    places = [(one.line, one.place) for one in caught.value.problems]
    assert places == [
        *[(line, "servers.toml") for line in (2, 3, 5, 6, 9)],
        (None, "--max-load"),
        (None, "URL argument"),
        (None, "ROUTER_PORT"),
    ]


def test_urls_of_the_command_line_need_no_file() -> None:
    servers = load(None, urls=["http://gpu1:1/", "http://b:2"], environ={}).servers
    assert [one.name for one in servers] == ["gpu1:1", "b:2"]
    assert [one.max_concurrent_requests for one in servers] == [None, None]


def test_urls_are_added_to_the_files_servers() -> None:
    servers = parse("servers = ['http://a:1']", urls=["http://b:2"], environ={}).servers
    assert [one.name for one in servers] == ["a:1", "b:2"]


def test_a_url_that_the_file_has_too_is_a_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("\nservers = ['http://a:1']", urls=["http://a:1"], environ={})
    (problem,) = caught.value.problems
    assert problem.render() == (
        "error: two servers have the URL `http://a:1`\n"
        "  --> URL argument\n"
        "   = the other one is at line 2"
    )


@pytest.mark.parametrize(("max_load", "limits"), [([4], [4, 4]), ([4, 8], [4, 8])])
def test_max_load_is_one_number_for_all_or_one_for_each(
    max_load: list[int], limits: list[int]
) -> None:
    config = load(None, urls=["http://a:1", "http://b:2"], max_load=max_load, environ={})
    assert [one.max_concurrent_requests for one in config.servers] == limits


@pytest.mark.parametrize(
    ("urls", "max_load", "message"),
    [
        (["http://a:1", "http://b:2"], [1, 2, 3], "there are 3 values for 2 URLs"),
        (["http://a:1"], [1, 2], "there are 2 values for 1 URLs"),
        (["http://a:1"], [0], "`--max-load` must be a whole number from 1 to"),
        ([], [4], "there is none"),
    ],
)
def test_a_max_load_that_fits_no_url(urls: list[str], max_load: list[int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, urls=urls, max_load=max_load, environ={})
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.place == "--max-load"


def test_a_server_from_a_mapping_of_an_api() -> None:
    found = server_from({"url": "http://a:1/v1", "weight": 2}, environ={})
    assert found == ServerSpec("http://a:1", "a:1", weight=2.0)
    assert server_from("http://a:1").name == "a:1"


@pytest.mark.parametrize("given", [None, 3, [], {}, {"url": None}, {"url": "http://a", "x": 1}])
def test_a_bad_mapping_of_an_api_names_its_place(given: object) -> None:
    with pytest.raises(ConfigError) as caught:
        server_from(given, place="request body")
    assert {one.place for one in caught.value.problems} == {"request body"}


@pytest.mark.parametrize("key", SERVER_KEYS, ids=lambda key: key.name)
def test_the_example_of_every_key_is_right(key: ServerKey, tmp_path: Path) -> None:
    keys = f"{key.name} = {key.example}"
    if key.name == "tls_key":
        keys += f"\ntls_cert = {key.example}"
    text = f"[[servers]]\n{keys}" if key.name == "url" else entry(keys)
    if key.name.startswith("tls_"):
        text = text.replace("http:", "https:")
        for name in re.findall(r'tls_\w+ = "(.*)"', keys):
            (tmp_path / name).write_text("BEGIN CERTIFICATE-----, BEGIN PRIVATE KEY-----")
    found = parse(text, tmp_path / "servers.toml", environ={"GPU_1_KEY": "x"})
    assert len(found.servers) == 1
