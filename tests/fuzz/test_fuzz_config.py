"""Any text is a configuration or a list of what is wrong with it, and no key is ever shown."""

from __future__ import annotations

import json

import pytest
from fuzz_checks import ROOT, check_config, check_spec, read_config
from fuzz_inputs import examples, json_values
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.config import Config, ConfigError
from mvllm_router.config.load import server_from
from mvllm_router.config.settings import SETTINGS

EXAMPLE = (ROOT / "servers.example.toml").read_text("utf-8")
SECRET = "Zq7SECRETx9"

NUMBER = "7319428806"  # a key may be made of digits, and be given without quotes

# Each has the key where a key may stand, and is whole lines; some are no TOML.
WITH_SECRET = (
    f'[config]\napi_key = "{SECRET}"\n',
    f"[config]\nadmin_key = '{SECRET}'\n",
    f'[config]\nadmin_key = "{SECRET}"\nport = "x"\n',
    f'[config]\napi_key = ["{SECRET}"]\n',
    f'[config]\napi_key = "{SECRET}\\n"\n',
    f'[config]\napi_kee = "{SECRET}"\n',
    f'config.api_key = "{SECRET}"\n',
    f'[[servers]]\nurl = "http://a:1"\napi_key = "{SECRET}"\n',
    f'[[servers]]\nurl = "http://a:1"\napi_key_env = "{SECRET}-"\n',
    f'[[servers]]\nurl = "http://a:1"\nheaders = {{ Authorization = "Bearer {SECRET}" }}\n',
    f'[[servers]]\nurl = "http://a:1"\nheaders = {{ X-A = {{ b = "{SECRET}" }} }}\n',
    f'[[servers]]\nurl = "http://u:{SECRET}@a:1"\n',
    f'[[servers]]\nurl = "http://a:1/?key={SECRET}"\n',
    f'[servers]\nservers = [{{ url = "http://a:1", api_key = "{SECRET}", weight = -1 }}]\n',
    f'[servers]\nservers = [{{ api_key = "{SECRET}", url = 5 }}, "http://{SECRET}@b:1"]\n',
    f'[auth]\nkeys = [{{ name = "a", key = "{SECRET}" }}]\n',
    f'[auth]\nkeys = [{{ name = "a", key = "{SECRET}", models = 1 }}]\n',
    f'[auth]\nkeys = ["{SECRET}"]\n',
    f'[auth]\nkeys = {{ "{SECRET}" = "alice" }}\n',
    f'[auth]\nalice = "{SECRET}"\n',
    f'[[auth.keys]]\nname = "a"\nkey_env = "{SECRET}!"\n',
    f'[[auth.keys]]\nname = "a"\nkey_file = "{SECRET}"\n',
    f'[auth.keys]\nalice = "{SECRET}"\n',
    f"[config]\napi_key = {NUMBER}\n",
    f"[config]\nadmin_key = {NUMBER}.5\n",
    f"[[servers]]\nurl = 'http://a:1'\napi_key = {NUMBER}\n",
    f"[[servers]]\nurl = 'http://a:1'\nheaders = {{ X-A = {NUMBER} }}\n",
    f"[auth]\nkeys = [{{ name = 'a', key = {NUMBER} }}]\n",
    f"[config]\napi_key = {SECRET}\n",
    f'[config]\napi_key = "{SECRET}" x\n',
    f'[config]\napi_key = "{SECRET}\n',
    f'[config]\napi_key: "{SECRET}"\n',
    f'[config]\napi_key "{SECRET}"\n',
    f'[servers]\nservers = [{{ url = "http://a:1", api_key = "{SECRET}", weight = }}]\n',
    f'[servers]\nservers = [{{ url = "http://a:1" api_key = "{SECRET}" }}]\n',
    f'[servers]\nservers = [{{ weight = x, headers = {{ X-Key = "{SECRET}" }} }}]\n',
    f'[auth]\nkeys = [{{ name = "a", key = "{SECRET}" ]\n',
    f'[auth]\nkeys = ["{SECRET}]\n',
    f'[[auth.keys]]\nname = "a"\nkey = "{SECRET}"\n[[auth.keys]]\nname = "a"\nkey = "{SECRET}"\n',
)

# What does not end a line early is harmless to what stands before and after it.
LINES = (
    *EXAMPLE.splitlines(),
    *(line.removeprefix("# ") for line in EXAMPLE.splitlines()),
    *(
        "[config]",
        "[servers]",
        "[[servers]]",
        "[auth]",
        "[[auth.keys]]",
        "[config.x]",
        "[servers.x]",
    ),
    *("servers = 1", "config = 1", "auth = []", "keys = []", "a.b.c = 1", "[[config]]", '["a b"]'),
    *(
        'url = "http://a:1"',
        'url = "http://[::1]:99999/x?y"',
        'url = "ftp://a"',
        "url = 1979-05-27",
    ),
    *(
        'name = "é\\u0000"',
        'name = ""',
        "weight = inf",
        "weight = nan",
        "weight = -0.0",
        "port = 0x10",
    ),
    *(
        f"port = {'9' * 5000}",
        "port = 1e400",
        "port = true",
        "max_retries = 1_0",
        "policy = 'nope'",
    ),
    *('tags = ["a", ["b"]]', "tags = [1]", 'models = { "a" = "" }', "models = []", "headers = 1"),
    *(
        "x = [",
        "x = {",
        "x = {}",
        '"""',
        "x = '''",
        'x = "',
        "=",
        "= 1",
        "\x00",
        "\ufeff",
        "[",
        "[[",
    ),
    *(
        "x = " + "[" * 2000,
        "x = " + "{a=" * 2000,
        "a." * 3000 + "b = 1",
        "\r",
        "\t",
        "🦙 = 1",
        "# é",
    ),
    *('url = "\u009bx"', 'a = "\u202e"', 'port = "\u0085"', 'url = "\\u009bx://a"'),
    *('tls_key = "\\u0000"', 'tls_cert = "\\ueffd"', 'policy = "\\u202e"'),
    *('tls_cert = "/"', 'tls_ca = "x"', 'api_key_env = "HOME"', "trusted_proxies = ['10.0.0.0/8']"),
    *('cors_origins = ["*"]', 'cors_origins = ["http://é"]', 'trusted_proxies = ["::/129"]'),
)
lines = st.one_of(st.sampled_from(LINES), st.text(max_size=20))
texts = st.one_of(st.just(""), st.lists(lines, max_size=8).map("\n".join))


def shown(result: Config | ConfigError) -> str:
    """Return all that a person or a log may get to see of it."""
    if isinstance(result, Config):
        return repr(result) + "".join(problem.render() for problem in result.warnings)
    whole = f"{result}\n{result!r}\n"
    return whole + "".join(f"{problem!r} {problem.render()}" for problem in result.problems)


@examples(250)
@given(texts)
def test_any_text_is_a_configuration_or_a_list_of_problems(text: str) -> None:
    check_config(text)


def check_hidden(text: str) -> None:
    seen = shown(read_config(text))
    assert SECRET not in seen
    assert NUMBER not in seen


@pytest.mark.parametrize("secret", WITH_SECRET)
def test_a_key_is_not_shown_where_it_stands(secret: str) -> None:
    check_hidden(secret)
    check_hidden(f"[config]\nport = -1\n{secret}")
    check_hidden(f"{secret}weight = -1\n[config.x]\n")


@examples(300)
@given(texts, st.sampled_from(WITH_SECRET), texts)
def test_a_key_is_never_shown_whatever_stands_around_it(
    before: str, secret: str, after: str
) -> None:
    check_hidden(f"{before}\n{secret}{after}")


_entries = st.dictionaries(
    st.sampled_from(
        ("url", "name", "api_key", "headers", "weight", "models", "tags", "engine", "api_kee")
    ),
    st.one_of(json_values, st.sampled_from(("http://a:1", SECRET, [SECRET], {"X-A": SECRET}))),
)


@examples(200)
@given(_entries)
def test_a_server_from_any_values_is_one_or_a_list_of_problems(entry: dict[str, object]) -> None:
    try:
        check_spec(server_from(entry, environ={}))
    except ConfigError as error:
        text = str(error)
        plain = {key: value for key, value in entry.items() if key not in ("api_key", "headers")}
        assert SECRET not in text or SECRET in json.dumps(plain)


def test_the_example_can_be_uncommented_line_by_line() -> None:
    for line in EXAMPLE.splitlines():
        check_config(line.removeprefix("# "))


@examples(200)
@given(
    st.dictionaries(
        st.sampled_from([setting.variable for setting in SETTINGS]),
        st.one_of(st.text(max_size=20), st.sampled_from((SECRET, "1", "true", "tcp://1", "a,b"))),
    )
)
def test_any_environment_is_a_configuration_or_a_list_of_problems(environ: dict[str, str]) -> None:
    got = read_config("", environ)
    secret = [f"ROUTER_{name}" for name in ("API_KEY", "ADMIN_KEY")]
    if not any(SECRET in value for name, value in environ.items() if name not in secret):
        assert SECRET not in shown(got)
