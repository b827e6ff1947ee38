"""How problems look, what they never show, and what a file that cannot be read gets."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mvllm_router.config import ConfigError, Problem, load, parse


def error(text: str, path: Path | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, path, environ=environ)
    return caught.value


def first(text: str) -> Problem:
    return error(text).problems[0]


def test_a_problem_shows_file_line_mark_cause_and_nearest_key() -> None:
    text = "[servers]\nservers = [\n" + "\n" * 8 + '    { url = "http://b:8000", wieght = 4 },\n]\n'
    assert str(error(text, Path("dir/my.toml"))) == (
        "error: unknown key `wieght`\n"
        f"  --> {Path('dir/my.toml')}:11:30\n"
        "   |\n"
        '11 |     { url = "http://b:8000", wieght = 4 },\n'
        "   |                              ^^^^^^\n"
        '   = in servers[0] (url = "http://b:8000")\n'
        "   = did you mean `weight`?"
    )


def test_a_wrong_value_is_marked_and_not_its_key() -> None:
    assert str(error('[config]\nport = "x"\n')) == (
        'error: `port` must be a whole number from 0 to 65535, but it is "x"\n'
        " --> servers.toml:2:8\n"
        "  |\n"
        '2 | port = "x"\n'
        "  |        ^^^"
    )


def test_a_problem_outside_of_a_file_shows_its_place_only() -> None:
    problem = Problem("bad", "ROUTER_PORT", hint="do better")
    assert problem.render() == "error: bad\n  --> ROUTER_PORT\n   = do better"


def test_several_problems_stand_apart() -> None:
    rendered = str(ConfigError([Problem("b", "x", line=9), Problem("a", "x", line=2)]))
    assert rendered == "error: a\n --> x:2\n\nerror: b\n --> x:9"


def test_an_error_survives_pickling() -> None:
    before = error("a = 1")
    assert pickle.loads(pickle.dumps(before)).problems == before.problems


def mark(text: str) -> tuple[str, str]:
    """The quoted line and the line of marks, without the margin."""
    lines = str(error(text)).splitlines()
    row = next(index for index, line in enumerate(lines) if line.endswith("|"))
    quoted, marks = lines[row + 1], lines[row + 2]
    edge = quoted.index("| ") + 2
    return quoted[edge:], marks[edge:]


def test_the_mark_stands_under_tabs_and_wide_characters() -> None:
    _, marks = mark("servers = [\n\t{ url = 'http://a', name = 3 },\n]")
    assert marks == "\t" + " " * len("{ url = 'http://a', name = ") + "^"
    _, marks = mark("servers = [{ url = 'http://a', tags = ['中文'], x = 3 }]")
    assert marks.index("^") == len("servers = [{ url = 'http://a', tags = ['????'], ")


def test_of_a_long_line_the_marked_part_is_shown() -> None:
    entries = ", ".join(f"{{ url = 'http://gpu{number}:8000' }}" for number in range(50))
    quoted, marks = mark(f"servers = [{entries}, {{ url = 'http://b:1', bad = 1 }}, 'http://c:1']")
    assert len(quoted) <= 110
    start = marks.index("^")
    assert quoted[start:].startswith("bad")
    assert marks.count("^") == 3


def test_the_mark_moves_with_what_was_masked_before_it() -> None:
    quoted, marks = mark("servers = [{ url = 'http://a', api_key = 'sk-secret-secret', bad = 1 }]")
    assert quoted[marks.index("^") :].startswith("bad = 1")
    assert "***" in quoted


LEAKS = {
    "next to a problem": "servers = [{ url = 'http://a', api_key = 'sk-1', bad = 1 }]",
    "wrong type": "servers = [{ url = 'http://a', api_key = ['sk-1'] }]",
    "control character": '[[servers]]\nurl = "http://a"\napi_key = "sk-1\\n"',
    "misspelt key": "servers = [{ url = 'http://a', api_kye = 'sk-1' }]",
    "key of no known name": "servers = [{ url = 'http://a', bearer = 'sk-1', weight = 0 }]",
    "key in place of its variable": "servers = [{ url = 'http://a', api_key_env = 'sk-1' }]",
    "header": "servers = [{ url = 'http://a', headers = { A = 'sk-1' }, bad = 1 }]",
    "header with a bad name": "servers = [{ url = 'http://a', headers = { 'A b' = 'sk-1' } }]",
    "headers as a list": "servers = [{ url = 'http://a', headers = ['A: sk-1'] }]",
    "headers as text": "servers = [{ url = 'http://a', headers = 'A: sk-1' }]",
    "header in a dotted key": "[[servers]]\nurl = 'http://a'\nheaders.A = 'sk-1'\nheaders.B = 1",
    "header with a table": "[[servers]]\nurl = 'http://a'\nheaders.A = { b = 'sk-1' }",
    "user in a URL": "servers = [{ url = 'http://me:sk-1@a' }]",
    "user in a plain URL": "servers = ['http://me:sk-1@a']",
    "user in a URL of no scheme": "servers = [{ url = 'me:sk-1@a' }]",
    "escaped user in a URL": 'servers = [{ url = "http://me:sk-1\\u0040a" }]',
    "user in a good server's line": "servers = ['http://a', 3, 'http://me:sk-1@b']",
    "query of a URL": "servers = [{ url = 'http://a?key=sk-1' }]",
    "URL in place of a name": "servers = [{ url = 'http://a', name = 'http://me:sk-1@b' }]",
    "URL in place of a number": "[config]\nport = 'http://me:sk-1@b'",
    "the router's key of a wrong type": "[config]\napi_key = ['sk-1']",
    "the router's key in the wrong table": "[servers]\napi_key = 'sk-1'",
    "the router's key misspelt": "[config]\napikey = 'sk-1'",
    "the router's key at the top": "api_key = 'sk-1'",
    "unknown table": "[auth]\nkeys = ['sk-1']\n[config.x]\ny = 'sk-1'",
    "a multi-line string": "servers = [{ url='http://a', api_key = '''\nsk-1\n''', bad = 1 }]",
    "no TOML: no closing quote": "[config]\napi_key = 'sk-1",
    "no TOML: no closing quote, then a line": "[config]\napi_key = 'sk-1\nport = 1",
    "no TOML: no quotes": "[config]\napi_key = sk-1",
    "no TOML: no comma": "servers = [{ url = 'http://a', api_key = 'sk-1' weight = 1 }]",
    "no TOML: a misspelt key": "servers = [{ url = 'http://a', api_kye = 'sk-1' weight = 1 }]",
    "no TOML: YAML": "api_key: sk-1",
    "no TOML: YAML with an unknown key": "bearer: 'sk-1'",
    "no TOML: header": "[[servers]]\nheaders = { A = 'sk-1', }\nheaders = { A = 'sk-1' 3 }",
    "no TOML: a line of a list": "x = [\n 'sk-1' 'sk-1'\n]",
    "no TOML: user in a URL": "servers = ['http://me:sk-1@a' 3]",
    "no TOML: in a long string": "api_key = '''\nsk-1 \x01 '''",
    "no TOML: open long string": "api_key = '''\nsk-1",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS.keys())
def test_no_secret_is_ever_shown(text: str) -> None:
    assert "sk-1" not in str(error(text))


def test_no_secret_of_the_command_line_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, urls=["http://me:sk-1@a", "me:sk-1@b"], environ={})
    assert "sk-1" not in str(caught.value)


def test_harmless_values_are_shown() -> None:
    rendered = str(error("servers = [{ url = 'http://a:1', name = 'big', tags = ['x'], bad = 4 }]"))
    assert "{ url = 'http://a:1', name = 'big', tags = ['x'], bad = 4 }" in rendered


SYNTAX = {
    "[config]\nport = abc\n": (2, 8, "text stands in quotes"),
    "[config\nport = 1\n": (1, 8, None),
    "[config]\nport = 1\nport = 2\n": (3, 9, None),
    "[config]\r\nport = \r\n": (2, 8, "text stands in quotes"),
    "servers = [\n  { url = 'http://a',\n    weight = 1 },\n]": (2, None, "stands on one line"),
}


@pytest.mark.parametrize(("text", "expected"), SYNTAX.items())
def test_a_syntax_error_has_its_place(
    text: str, expected: tuple[int, int | None, str | None]
) -> None:
    line, column, hint = expected
    (problem,) = error(text).problems
    assert problem.message.startswith("this is not valid TOML: ")
    assert problem.line == line
    assert column in (None, problem.column)
    assert problem.source_line == text.replace("\r", "").split("\n")[line - 1]
    assert (hint or "") in (problem.hint or "")


def test_a_syntax_error_at_the_end_of_the_file() -> None:
    (problem,) = error("a = [1,\n2,\n").problems
    assert (problem.line, problem.source_line) == (3, None)
    assert problem.message.endswith("at the end of the file")


@pytest.mark.parametrize("text", ["a = " + "[" * 10000 + "]" * 10000, "a = 1" + "0" * 5000])
def test_what_the_parser_gives_up_on_is_a_problem_too(text: str) -> None:
    (problem,) = error(text).problems
    assert problem.place == "servers.toml"


def test_control_characters_never_reach_the_terminal() -> None:
    for text in ("a = 1 \x1b[31m", "'\\u001b' = 1", '"\\u001b[31m" = 1', "[config]\n\x07 = 1"):
        assert all(line.isprintable() for line in str(error(text)).splitlines())


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "servers.toml", environ={})
    (problem,) = caught.value.problems
    assert problem.place == str(tmp_path / "servers.toml")
    assert problem.hint == "`router init` writes one"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a directory"):
        load(tmp_path, environ={})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (PermissionError(13, "Permission denied"), "no permission"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read(
    fault: OSError, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(path: Path) -> bytes:
        raise fault

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "servers.toml", environ={})


def test_a_file_that_is_not_utf_8_gets_the_line(tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    path.write_bytes(b"[config]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (2, "the file is not UTF-8")


def test_a_file_in_utf_16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    path.write_text("[config]\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="UTF-16"):
        load(path, environ={})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_other_line_ends_are_tolerated(
    tmp_path: Path, encoding: str, newline: str
) -> None:
    path = tmp_path / "servers.toml"
    with path.open("w", encoding=encoding, newline=newline) as file:
        file.write("bad = 1\n[config]\nport = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    places = [(one.line, one.column, one.source_line) for one in caught.value.problems]
    assert places == [(1, 1, "bad = 1"), (3, 8, "port = 'x'")]


def test_a_good_file_is_remembered_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    path.write_text("servers = ['http://a:1']\n[config]\nport = 1\n", encoding="utf-8")
    config = load(path, environ={})
    assert (config.path, config.settings.port, len(config.servers)) == (path, 1, 1)
    assert config.origins["port"] == "file"


def test_the_process_environment_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "1234")
    assert load(None).settings.port == 1234
