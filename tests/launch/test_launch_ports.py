"""Ports that are held until a server listens."""

from __future__ import annotations

import socket
import sys

import pytest

from mvllm_router.launch.ports import Ports


def bind(port: int, *, reuse: bool) -> socket.socket:
    listener = socket.socket()
    if reuse:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


@pytest.fixture
def ports() -> Ports:
    return Ports()


def test_each_port_is_given_once(ports: Ports) -> None:
    taken = [ports.take() for _ in range(50)]
    assert len(set(taken)) == 50
    ports.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port cannot be held so")
def test_a_held_port_is_for_its_server_and_for_nobody_else(ports: Ports) -> None:
    port = ports.take()
    with pytest.raises(OSError, match="in use"):
        bind(port, reuse=False)
    ports.about_to_listen(port, shares=True)
    server = bind(port, reuse=True)
    with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"
    server.close()
    ports.close()


def test_a_port_is_let_go_for_a_server_that_cannot_bind_beside_us(ports: Ports) -> None:
    port = ports.take()
    ports.about_to_listen(port, shares=False)
    bind(port, reuse=False).close()
    ports.give_back(port)


def test_a_port_that_is_given_back_is_free(ports: Ports) -> None:
    port = ports.take()
    ports.give_back(port)
    bind(port, reuse=False).close()
