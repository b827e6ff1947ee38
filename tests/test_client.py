"""Speaking to a running router: what comes back, and whose fault it is when nothing does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mvllm_router import client
from mvllm_router.client import NotAuthorised, Refused, Unreachable, get, send


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `page` says, and keeps what came."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        server.bodies.append((self.command, self.rfile.read(length)))
        status, headers, body = server.page
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(status: int = 200, body: bytes = b"{}", **headers: str) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.page, server.seen, server.bodies = (status, headers, body), [], []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """Serve one connection with exactly these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("ending", ["", "/"])
def test_an_object_comes_back(ending: str) -> None:
    with serving(body=b'{"a": 1}') as server:
        assert get(server.url + ending, "/router/snapshot") == {"a": 1}
        assert server.seen[0][0] == "/router/snapshot"
        assert "Authorization" not in server.seen[0][1]


def test_the_scheme_may_be_left_out() -> None:
    with serving(body=b'{"a": 1}') as server:
        assert get(server.url.removeprefix("http://"), "/") == {"a": 1}


def test_the_key_is_sent_without_white_space_around_it() -> None:
    with serving() as server:
        get(server.url, "/", " secret\n")
        assert server.seen[0][1]["Authorization"] == "Bearer secret"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as server:
        assert get(server.url, "/") == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_not_authorised(status: int) -> None:
    with serving(status) as server:
        with pytest.raises(NotAuthorised, match="wants an API key"):
            get(server.url, "/")
        with pytest.raises(NotAuthorised, match="does not take this API key") as caught:
            get(server.url, "/", "secret")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_is_no_router(status: int) -> None:
    with serving(status) as server, pytest.raises(Unreachable, match=f"answered {status}"):
        get(server.url, "/")


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with serving() as other, serving(302, Location=other.url) as server:
        with pytest.raises(Unreachable, match="answered 302"):
            get(server.url, "/", "secret")
        assert other.seen == []


@pytest.mark.parametrize("body", [b"[]", b"text", b"\xff", b'"x"'])
def test_what_is_no_object_is_no_router(body: bytes) -> None:
    with serving(body=body) as server, pytest.raises(Unreachable, match="is it a router"):
        get(server.url, "/")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_what_is_no_http_is_no_router(answer: bytes) -> None:
    with saying(answer) as url, pytest.raises(Unreachable):
        get(url, "/")


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable, match="connection refused"):
        get(f"http://127.0.0.1:{port}", "/")


def test_silence_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no answer in time"):
            get(url, "/", timeout=0.05)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x", "http://[::1", "http://a b", "http://x:y", ""]
)
def test_what_is_no_address_is_unreachable_and_nothing_else(url: str) -> None:
    with pytest.raises(Unreachable):
        get(url, "/")


@pytest.mark.parametrize("url", ["http://" + "a" * 64 + ".example", "http://x\ny"])
def test_an_address_that_cannot_be_sent_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable):
        get(url, "/")


def test_a_key_that_cannot_be_sent_is_said_without_showing_it() -> None:
    with serving() as server:
        with pytest.raises(Unreachable, match="signs in it that cannot be sent") as caught:
            get(server.url, "/", "sec\nret")
        assert "ret" not in str(caught.value)


def test_an_answer_that_does_not_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MAX_ANSWER", 100)
    with serving(body=b'{"a": "' + b"x" * 100 + b'"}') as server:
        with pytest.raises(Unreachable, match="more than 100 bytes"):
            get(server.url, "/")
        server.page = (200, {}, b'{"a": "' + b"x" * 91 + b'"}')
        assert len(get(server.url, "/")["a"]) == 91


def test_an_answer_too_deep_to_be_read_is_no_router() -> None:
    with serving(body=b"[" * 100_000) as server, pytest.raises(Unreachable, match="with JSON"):
        get(server.url, "/")


# --- changes

ERROR = b'{"error": {"message": "There is no server `x`.", "type": "t", "param": null, "code": 1}}'


def test_what_is_sent_is_json_with_its_type_and_the_key() -> None:
    with serving(body=b'{"a": 1}') as server:
        answer = send("PATCH", server.url, "/router/backends/x", {"state": "drain"}, key="secret")
        assert answer == {"a": 1}
        ((path, headers),) = server.seen
        assert path == "/router/backends/x"
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Bearer secret"
        assert server.bodies == [("PATCH", b'{"state":"drain"}')]


def test_numbers_that_json_does_not_have_are_not_sent() -> None:
    with serving() as server:
        with pytest.raises(ValueError, match="JSON"):
            send("PATCH", server.url, "/", {"weight": float("nan")})
        assert server.bodies == []


def test_an_empty_object_is_sent_and_nothing_is_not() -> None:
    with serving() as server:
        send("POST", server.url, "/", {})
        send("GET", server.url, "/")
        assert server.bodies == [("POST", b"{}"), ("GET", b"")]
        assert "Content-Type" not in server.seen[1][1]


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
def test_what_the_router_refuses_comes_with_its_words_and_its_whole_answer(status: int) -> None:
    with serving(status, ERROR) as server:
        with pytest.raises(Refused, match=r"^There is no server `x`\.$") as caught:
            send("PATCH", server.url, "/", {})
        assert caught.value.status == status
        assert caught.value.document["error"]["code"] == 1


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_change_the_router_is_told_why(status: int) -> None:
    with serving(status, ERROR) as server:
        with pytest.raises(NotAuthorised, match=r"answers: There is no server `x`\.$"):
            send("PATCH", server.url, "/", {}, key="secret")
        with pytest.raises(NotAuthorised, match=r"does not take this API key$"):
            get(server.url, "/", "secret")
    with serving(status) as server, pytest.raises(NotAuthorised, match="wants an API key"):
        send("PATCH", server.url, "/", {})


@pytest.mark.parametrize("body", [b"", b'{"detail": "Not Found"}', b'{"error": "no"}'])
def test_an_error_of_another_kind_of_server_is_no_refusal(body: bytes) -> None:
    with serving(404, body) as server, pytest.raises(Unreachable, match="answered 404"):
        send("PATCH", server.url, "/", {})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_change_does_not_follow_a_redirect(status: int) -> None:
    with serving() as other, serving(status, Location=other.url) as server:
        with pytest.raises(Unreachable, match=f"answered {status}"):
            send("PATCH", server.url, "/", {"state": "drain"}, key="secret")
        assert other.seen == []
