"""Certificates and keys that change while the router runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support import until
from tls_kit import Authority
from wire import OK, Scripted, answer, replies

from mvllm_router.config import Config, ServerSpec, load
from mvllm_router.config.pem import stamp
from mvllm_router.control import certificates
from mvllm_router.control.certificates import CertificateWatch
from mvllm_router.pool.events import Events
from mvllm_router.server import Router
from mvllm_router.tls import Certificate


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Bench:
    """A watch, and the reloads that it has asked for."""

    def __init__(self, own: Certificate | None = None, *servers: ServerSpec) -> None:
        self.servers = servers
        self.reloads = 0
        self.events = Events()
        self.watch = CertificateWatch(own, lambda: self.servers, self._reload, self.events)

    async def _reload(self) -> None:
        self.reloads += 1

    async def look(self) -> list[str]:
        """Look once; return what it said of that."""
        before = len(self.events.last(100))
        assert await self.watch.look() == certificates.TICK
        return [event.message for event in self.events.last(100)[before:]]


async def test_nothing_is_said_while_nothing_changes(authority: Authority) -> None:
    files = authority.issue("own")
    server = ServerSpec(
        "https://a:1", "a", tls_ca=authority.path, tls_files=stamp([authority.path])
    )
    bench = Bench(Certificate(files.cert, files.key), server, ServerSpec("http://b:1", "b"))
    assert await bench.look() == await bench.look() == []
    assert bench.reloads == 0


async def test_an_own_certificate_is_taken_or_refused_and_either_is_said_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("own")
    bench = Bench(Certificate(files.cert, files.key))
    authority.issue("own")
    assert await bench.look() == ["the new certificate is in use"]
    authority.spoil(files, "fit")
    (message,) = await bench.look()
    assert message.startswith("the new certificate is refused, the old one stays: ")
    assert message.endswith("the key does not fit the certificate")
    assert caplog.records[-1].levelno == logging.ERROR
    assert await bench.look() == []
    assert bench.reloads == 0


async def test_a_file_of_a_server_leads_to_one_reload_also_where_that_fails(
    authority: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    bench = Bench(None, ServerSpec("https://a:1", "a", tls_ca=str(ca), tls_files=stamp([str(ca)])))
    for content in ("first", "second"):
        ca.write_text(content)
        for _ in range(3):
            await bench.look()
        assert bench.reloads == (1 if content == "first" else 2)


async def test_a_server_is_reached_with_its_new_ca_without_a_restart(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "TICK", 0.02)
    other = Authority(tmp_path, "other")
    file = tmp_path / "servers.toml"
    tls = other.for_servers(other.issue("server"))
    async with Scripted(replies(answer(b"well", OK)), tls=tls) as server:
        file.write_text(
            f'[[servers]]\nurl = "{server.url}"\nname = "s0"\ntls_ca = "ca.pem"\n'
            "[config]\nport = 0\nhealth_check_interval = 0.1\n"
        )

        def reread() -> Config:
            return load(file, environ={})

        router = Router(reread(), reread)
        await router.start()
        try:
            await router.watches.checked()
            backend = router.pool.backends["s0"]
            assert "its certificate is not trusted" in backend.health.reason
            other.ca.cert_pem.write_to_path(authority.path)
            await until(lambda: router.pool.backends["s0"].is_up)
            assert router.pool.backends["s0"] is backend
        finally:
            await router.stop(1)


async def test_a_ca_that_is_spoilt_leaves_the_server_as_it_was(
    authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        f'servers = [{{ url = "https://a:1", tls_ca = "{Path(authority.path).name}" }}]'
    )
    router = Router(load(file, environ={}), lambda: load(file, environ={}))
    bench = Bench(None, *router.config.servers)
    (tmp_path / "ca.pem").write_text("half of")
    await bench.look()
    assert bench.reloads == 1
    outcome = await router.live.reload()
    assert outcome.refused is not None
    assert "the file of `tls_ca` has no certificate in PEM format" in outcome.refused
    assert router.config.servers == bench.servers
