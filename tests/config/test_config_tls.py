"""Files with certificates and keys: where they are looked for, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvllm_router.config import ConfigError, Override, Problem, ServerSpec, changes, load, parse
from mvllm_router.config.pem import stamp

CERT = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with certificates and keys."""
    for name, content in (("ca.pem", CERT), ("a.pem", CERT), ("a.key", KEY), ("both", CERT + KEY)):
        (tmp_path / name).write_text(content)
    (tmp_path / "junk").write_text("no certificate")
    return tmp_path


def entry(keys: str, url: str = "https://a:1") -> str:
    return f'[[servers]]\nurl = "{url}"\n{keys}\n'


def server(folder: Path, keys: str) -> ServerSpec:
    (found,) = parse(entry(keys), folder / "servers.toml", environ={}).servers
    return found


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, folder / "servers.toml", environ={})
    return caught.value.problems


# --- of servers


def test_paths_of_a_server_begin_at_the_folder_of_the_file(folder: Path) -> None:
    found = server(folder, 'tls_ca = "ca.pem"\ntls_cert = "a.pem"\ntls_key = "a.key"')
    paths = (found.tls_ca, found.tls_cert, found.tls_key)
    assert paths == tuple(str(folder / name) for name in ("ca.pem", "a.pem", "a.key"))
    assert server(folder, f"tls_ca = '{folder / 'ca.pem'}'").tls_ca == str(folder / "ca.pem")


def test_the_key_may_be_in_the_file_of_the_certificate(folder: Path) -> None:
    found = server(folder, 'tls_cert = "both"')
    assert (found.tls_cert, found.tls_key) == (str(folder / "both"), "")


def test_an_empty_path_is_none(folder: Path) -> None:
    found = server(folder, 'tls_ca = ""\ntls_cert = ""\ntls_key = ""')
    assert (found.tls_ca, found.tls_cert, found.tls_key) == ("", "", "")
    assert found == server(folder, "")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('tls_ca = "nope"', "the file of `tls_ca` cannot be read: no such file or directory"),
        ('tls_ca = "."', "the file of `tls_ca` cannot be read: is a directory"),
        ('tls_ca = "junk"', "the file of `tls_ca` has no certificate in PEM format"),
        ('tls_ca = "a.key"', "the file of `tls_ca` has no certificate in PEM format"),
        ('tls_cert = "nope"', "the file of `tls_cert` cannot be read"),
        ('tls_cert = "a.pem"', "the file of `tls_cert` has no private key in PEM format"),
        ('tls_key = "a.key"', "`tls_key` is given without `tls_cert`"),
        ('tls_ca = "ca.pem"\ntls_verify = false', "`tls_ca` has no effect where `tls_verify`"),
        ("tls_ca = 3", "`tls_ca` must be a string"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column(folder: Path, keys: str, message: str) -> None:
    (problem,) = problems(folder, entry(keys))
    assert message in problem.message
    assert (problem.line, problem.place) == (3, str(folder / "servers.toml"))
    assert problem.column == keys.index("=") + 3


def test_a_key_file_without_a_key_is_told(folder: Path) -> None:
    (problem,) = problems(folder, entry('tls_cert = "a.pem"\ntls_key = "ca.pem"'))
    assert problem.message == "the file of `tls_key` has no private key in PEM format"
    assert problem.line == 4


@pytest.mark.parametrize("keys", ['tls_ca = "ca.pem"', 'tls_cert = "both"'])
def test_they_are_for_https_only(folder: Path, keys: str) -> None:
    (problem,) = problems(folder, entry(keys, "http://a:1"))
    assert "is for servers whose URL begins with https://" in problem.message
    assert problem.line == 3


def test_a_file_with_another_content_is_a_change_of_its_server(folder: Path) -> None:
    text = entry('tls_ca = "ca.pem"')
    old = parse(text, folder / "servers.toml", environ={})
    assert not changes(old, parse(text, folder / "servers.toml", environ={}))
    (folder / "ca.pem").write_text(CERT * 2)
    diff = changes(old, parse(text, folder / "servers.toml", environ={}))
    assert diff.changed == {"a:1": ("tls_files",)}


def test_a_stamp_tells_files_apart_and_takes_those_that_are_gone(folder: Path) -> None:
    one, other = str(folder / "ca.pem"), str(folder / "a.key")
    assert stamp(()) == stamp(("", "")) == ""
    stamps = {stamp(paths) for paths in ((one,), (other,), (one, other), (other, one), ("nope",))}
    assert len(stamps) == 5


# --- of the router itself


def test_paths_of_the_router_begin_at_the_folder_of_the_file(folder: Path) -> None:
    text = '[config]\ntls_cert = "a.pem"\ntls_key = "a.key"\n'
    settings = parse(text, folder / "servers.toml", environ={}).settings
    assert (settings.tls_cert, settings.tls_key) == (str(folder / "a.pem"), str(folder / "a.key"))


def test_paths_of_variables_and_options_begin_at_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    config = load(
        None,
        environ={"ROUTER_TLS_CERT": "a.pem"},
        overrides={"tls_key": Override("a.key", "flag", "--tls-key")},
    )
    assert (config.settings.tls_cert, config.settings.tls_key) == ("a.pem", "a.key")
    assert [config.origins[name] for name in ("tls_cert", "tls_key")] == ["environment", "flag"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tls_cert = "a.pem"', "`tls_cert` is given without `tls_key`: TLS needs both"),
        ('tls_key = "a.key"', "`tls_key` is given without `tls_cert`: TLS needs both"),
        ('tls_cert = "a.pem"\ntls_key = ""', "`tls_cert` is given without `tls_key`"),
        ('tls_cert = "nope"\ntls_key = "a.key"', "the file of `tls_cert` cannot be read"),
        ('tls_cert = "a.key"\ntls_key = "a.key"', "the file of `tls_cert` has no certificate"),
    ],
)
def test_a_mistake_with_the_routers_own_is_told_with_its_line(
    folder: Path, text: str, message: str
) -> None:
    (problem,) = problems(folder, f"[config]\n{text}\n")
    assert message in problem.message
    assert (problem.line, problem.column) == (2, text.index("=") + 3)


def test_a_missing_half_is_a_problem_of_where_the_other_comes_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    places = []
    flags = {"tls_cert": Override("a.pem", "flag", "--tls-cert")}
    for more in ({"overrides": flags}, {"environ": {"ROUTER_TLS_KEY": "a.key"}}):
        with pytest.raises(ConfigError, match="TLS needs both") as caught:
            load(None, **{"environ": {}, **more})  # type: ignore[arg-type]
        places += [problem.place for problem in caught.value.problems]
    assert places == ["--tls-cert", "ROUTER_TLS_KEY"]


def test_another_file_needs_a_restart_and_another_content_does_not(folder: Path) -> None:
    text = '[config]\ntls_cert = "a.pem"\ntls_key = "a.key"\n'
    old = parse(text, folder / "servers.toml", environ={})
    (folder / "a.pem").write_text(CERT * 2)
    assert not changes(old, parse(text, folder / "servers.toml", environ={}))
    new = parse(text.replace("a.pem", "both"), folder / "servers.toml", environ={})
    assert changes(old, new).needs_restart == ("tls_cert",)
