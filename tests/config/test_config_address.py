"""URLs of servers: one spelling each, clear words for bad ones, and names made from them."""

from __future__ import annotations

import pytest

from mvllm_router.config import Mismatch, default_name, normalise_url
from mvllm_router.config.address import NAME, safe_name
from mvllm_router.config.problems import mask_url

SPELLINGS = {
    "http://gpu1:8000": "http://gpu1:8000",
    "http://gpu1:8000/": "http://gpu1:8000",
    " http://gpu1:8000\n": "http://gpu1:8000",
    "HTTP://GPU1:8000/Path": "http://gpu1:8000/Path",
    "http://gpu1:8000/v1": "http://gpu1:8000",
    "http://gpu1:8000/v1/": "http://gpu1:8000",
    "http://gpu1:8000/api/v1//": "http://gpu1:8000/api",
    "http://gpu1:8000/apiv1": "http://gpu1:8000/apiv1",
    "http://gpu1:80": "http://gpu1",
    "https://gpu1:443/v1": "https://gpu1",
    "https://gpu1:80": "https://gpu1:80",
    "http://gpu1:": "http://gpu1",
    "http://gpu1:08000": "http://gpu1:8000",
    "http://my_service-1.lan:8000": "http://my_service-1.lan:8000",
    "http://[::1]:8000": "http://[::1]:8000",
    "http://[2001:DB8:0::1]": "http://[2001:db8::1]",
}

REFUSED = {
    "": "empty",
    "   ": "empty",
    "gpu1:8000": "does not begin with http",
    "ftp://gpu1": "does not begin with http",
    "http:/gpu1": "does not begin with http",
    "http://": "names no host",
    "http://:8000": "names no host",
    "http://gpu1:0": "port",
    "http://gpu1:65536": "port",
    "http://gpu1:80a": "port",
    "http://gpu1:-1": "port",
    "http://::1:8000": "host",
    "http://[::1:8000": "host",
    "http://[::1]8000": "host",
    "http://[gpu1]:8000": "IPv6",
    "http://gpu 1:8000": "white space",
    "http://gpu1:8000\r\nx": "white space",
    "http://gpü1:8000": "host",
    "http://-gpu1": "host",
    "http://gpu1?x=1": "query",
    "http://gpu1/a#b": "fragment",
    "http://me:pw@gpu1": "user or a password",
    "http://gpu1:8000/v1/chat/completions": "one endpoint",
    "http://gpu1:8000/embeddings/": "one endpoint",
}


@pytest.mark.parametrize(("given", "expected"), SPELLINGS.items())
def test_a_url_has_one_spelling(given: str, expected: str) -> None:
    assert normalise_url(given) == expected
    assert normalise_url(expected) == expected


@pytest.mark.parametrize(("given", "reason"), REFUSED.items())
def test_a_bad_url_is_refused_with_its_reason(given: str, reason: str) -> None:
    with pytest.raises(Mismatch) as caught:
        normalise_url(given)
    assert reason in caught.value.message


def test_a_missing_scheme_is_suggested() -> None:
    with pytest.raises(Mismatch) as caught:
        normalise_url("gpu1:8000")
    assert caught.value.hint == "did you mean http://gpu1:8000?"


@pytest.mark.parametrize(
    "url",
    [
        "http://me:sk-1@gpu1",
        "http://sk-1@gpu1:x",
        "me:sk-1@gpu1:8000",
        "ftp://me:sk-1@gpu1",
        "http://me:sk-1/@gpu1",
        "http://me:a@sk-1://@gpu1",
        "http://gpu1?key=sk-1",
        "http://gpu1/#sk-1",
        "http://gpu1:x?sk-1",
        "me:sk-1@x://gpu1",
    ],
)
def test_secrets_in_a_bad_url_are_not_told(url: str) -> None:
    assert "sk-1" not in mask_url(url)
    with pytest.raises(Mismatch) as caught:
        normalise_url(url)
    assert "sk-1" not in f"{caught.value.message} {caught.value.hint}"


def test_a_url_without_secrets_is_not_masked() -> None:
    assert mask_url("http://gpu1:8000/a") == "http://gpu1:8000/a"
    assert mask_url("gpu1") == "gpu1"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://gpu1:8000", "gpu1:8000"),
        ("http://gpu1", "gpu1:80"),
        ("https://gpu1", "gpu1:443"),
        ("http://[::1]", "[::1]:80"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://gpu1:8000/a/b~c", "gpu1:8000-a-b-c"),
        ("https://gpu1/a", "gpu1:443-a"),
    ],
)
def test_a_default_name_shows_host_port_and_prefix(url: str, name: str) -> None:
    assert default_name(normalise_url(url)) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    names = {safe_name("a" * 80 + end) for end in ("x", "y")}
    assert len(names) == 2
    assert all(NAME.fullmatch(name) for name in names)


@pytest.mark.parametrize("name", ["..", "-", "", "a b", "a/b", "a\n", "é", "a" * 65])
def test_names_that_break_headers_labels_or_paths_are_refused(name: str) -> None:
    assert not NAME.fullmatch(name)
