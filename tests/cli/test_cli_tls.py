"""`router run` with a certificate, and `router status` of such a router."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest
from cli_kit import router, running
from tls_kit import Authority, serial, serial_of
from wire import Client

posix = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
URL = "http://127.0.0.1:1"  # a server that nobody needs


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def words(name: str = "router") -> tuple[str, ...]:
    return (URL, "--tls-cert", f"{name}.pem", "--tls-key", f"{name}.key")


async def certificate_of(url: str, trust: ssl.SSLContext) -> int:
    async with Client(url, tls=trust) as client:
        return serial(client.writer.get_extra_info("ssl_object"))


async def test_it_says_https_and_status_shows_it_to_who_trusts_its_ca(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("router")
    async with running(*words(), cwd=tmp_path) as run:
        assert run.url.startswith("https://127.0.0.1:")
        known = await router("status", run.url, cwd=tmp_path, SSL_CERT_FILE=authority.path)
        assert (known.code, known.err) == (0, "")
        assert known.out.startswith(run.url)
        unknown = await router("status", run.url, cwd=tmp_path)
        assert unknown.code == 3
        assert "its certificate is not trusted: unable to get local issuer" in unknown.err
        assert "hint: SSL_CERT_FILE=ca.pem in the environment trusts a CA" in unknown.err


async def test_status_says_what_is_wrong_with_the_address(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("router", "router.example")
    async with running(*words(), cwd=tmp_path) as run:
        done = await router("status", run.url, cwd=tmp_path, SSL_CERT_FILE=authority.path)
        assert done.code == 3
        assert "not valid for '127.0.0.1'" in done.err
        assert "hint: name the router as its certificate does" in done.err
        plain = run.url.replace("https:", "http:")
        assert "hint: does it speak https://?" in (await router("status", plain, cwd=tmp_path)).err
    async with running(URL, cwd=tmp_path) as run:
        done = await router("status", run.url.replace("http:", "https:"), cwd=tmp_path)
        assert "it does not speak TLS\nhint: does it speak http:// without TLS?" in done.err


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("nope.pem", "router.key", "error: the file of `tls_cert` cannot be read: no such file"),
        ("router.key", "router.key", "error: the file of `tls_cert` has no certificate"),
        ("router.pem", "other.key", "error: cannot listen with TLS: the certificate router.pem"),
    ],
)
async def test_a_certificate_that_cannot_be_used_ends_it_with_2(
    cert: str, key: str, says: str, authority: Authority, tmp_path: Path
) -> None:
    authority.issue("router")
    authority.issue("other")
    done = await router("run", URL, "--tls-cert", cert, "--tls-key", key, cwd=tmp_path)
    assert done.code == 2
    assert says in done.err


async def test_one_of_the_two_alone_ends_it_with_2(authority: Authority, tmp_path: Path) -> None:
    authority.issue("router")
    done = await router("run", URL, "--tls-cert", "router.pem", cwd=tmp_path)
    assert done.code == 2
    assert "`tls_cert` is given without `tls_key`: TLS needs both\n  --> --tls-cert" in done.err


async def test_check_tells_of_a_missing_ca_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text('servers = [{ url = "https://a:1", tls_ca = "no" }]\n')
    done = await router("check", cwd=tmp_path)
    assert done.code == 2
    assert "the file of `tls_ca` cannot be read: no such file or directory" in done.err
    assert "--> servers.toml:1:44" in done.err


@posix
@pytest.mark.parametrize("broken", [False, True])
async def test_a_hangup_reads_the_certificate_again_and_does_not_end_it(
    broken: bool, authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue("router")
    trust = authority.for_clients()
    async with running(*words(), cwd=tmp_path) as run:
        assert await certificate_of(run.url, trust) == serial_of(files)
        kept = serial_of(files)
        if broken:
            authority.spoil(files, "key")
        else:
            authority.issue("router")
        run.process.send_signal(signal.SIGHUP)
        word = "refused" if broken else "in use"
        await run.log_line(f"the new certificate is {word}")
        wanted = kept if broken else serial_of(files)
        assert await certificate_of(run.url, trust) == wanted
        done = await run.stop()
        assert done.code == 0


async def test_the_demo_sends_its_traffic_over_tls_too(
    authority: Authority, tmp_path: Path
) -> None:
    """Its clients are on this machine; whose name the certificate has is all the same."""
    authority.issue("router", "router.example")
    async with running("--demo", *words()[1:], "--log-level", "debug", cwd=tmp_path) as run:
        assert run.url.startswith("https://")
        await asyncio.wait_for(run.log_line("POST /v1/chat/completions -> "), 30)
        await run.stop()
