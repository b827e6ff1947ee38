"""The parts of a request: its body's model, its path, its headers, its id. Any bytes will do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from fuzz_checks import OWN_NAME, check_body, check_path, check_renaming
from fuzz_http import HOP_BY_HOP, read_request
from fuzz_inputs import TOKENS, examples, mutated
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.errors import BadRequest
from mvllm_router.fields import fields_of
from mvllm_router.front.forwarded import TrustedProxies
from mvllm_router.proxy import headers
from mvllm_router.proxy.inspect import wanted_of, with_model
from mvllm_router.proxy.routes import relayed

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data; boundary=B"

# --- the model


def _document(fields: list[tuple[str, Any]], indent: int | None, ascii_only: bool) -> bytes:
    """Return an object; keys may come twice."""
    members = [
        f"{json.dumps(key)}:{json.dumps(value, indent=indent, ensure_ascii=ascii_only)}"
        for key, value in fields
    ]
    return ("{ " + " ,\n".join(members) + "}").encode("utf-8", "replace")


# Not what Python reads as JSON and others do not: NaN, infinities, half of a surrogate pair.
scalars = st.sampled_from(
    (None, True, 0, -1, 10**30, 1.5, 1e-300, 0.1, "", "tiny", 'a"b\\', "\n\x00", "grüße 🦙", "{}")
)
plain_values = st.one_of(
    scalars,
    scalars,
    st.text(max_size=6),
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(("model", "é", "a")), scalars, max_size=3),
)
documents = st.builds(
    _document,
    st.lists(
        st.tuples(
            st.sampled_from(("model", "Model", "messages", "n", "stream", "x")),
            plain_values,
        ),
        max_size=5,
    ),
    st.sampled_from((None, 1)),
    st.booleans(),
)
named_documents = st.builds(
    lambda before, name, after: (
        before[:-1] + (b"," if before != b"{ }" else b"") + name + after[1:]
    ),
    documents,
    st.text(min_size=1, max_size=6).map(lambda name: f'"model":{json.dumps(name)},'.encode()),
    documents.filter(lambda after: after != b"{ }"),
)
form_part = st.sampled_from(
    (
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n',
        b"--B\r\nContent-Disposition: form-data; name=model\r\ncontent-type: a/b\r\n\r\nm\r\n",
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\nx\r\n',
        b'--B\r\nContent-Disposition: form-data; filename="a"; name="model"\r\n\r\n\xff\r\n',
        b"--B--\r\n",
    )
)
forms = st.lists(form_part, max_size=4).map(b"".join)
bodies = st.one_of(
    documents,
    mutated(documents),
    mutated(forms),
    st.binary(max_size=40),
    st.integers(1, 4000).map(lambda depth: b'{"a":' * depth),
    st.integers(1, 4000).map(lambda depth: b'{"model":' + b"[" * depth + b"]" * depth + b"}"),
)
queries = st.one_of(
    st.just(""),
    st.text(max_size=30),
    st.sampled_from(("model=q", "a=1&model=%ff", "model", "model=&model=x", "%", "model=\udcff")),
)


def finds(body: bytes, content_type: str = JSON_TYPE, query: str = "") -> str | None:
    try:
        model = wanted_of(body, content_type, query).model
    except BadRequest:  # a form that names two
        return None
    assert model is None or isinstance(model, str)
    return model


@examples(500)
@given(bodies, st.sampled_from((JSON_TYPE, FORM_TYPE, "", "Multipart/x")), queries, st.booleans())
def test_any_body_names_a_model_or_none_or_is_a_bad_request(
    body: bytes, content_type: str, query: str, must_be_json: bool
) -> None:
    check_body(body, content_type, query, must_be_json=must_be_json)


@examples(400)
@given(documents)
def test_the_model_is_the_one_that_a_server_reads(body: bytes) -> None:
    model = json.loads(body).get("model")
    assert finds(body) == (model if isinstance(model, str) and model else None)


@examples(400)
@given(st.one_of(documents, named_documents, mutated(named_documents, 2)))
def test_another_name_changes_nothing_but_the_model(body: bytes) -> None:
    check_renaming(body)


@examples(200)
@given(mutated(forms))
def test_another_name_in_a_form_changes_nothing_else(body: bytes) -> None:
    model = finds(body, FORM_TYPE)
    if model is None or body.lstrip().startswith(b"{"):
        return
    renamed = with_model(body, OWN_NAME)
    assert finds(renamed, FORM_TYPE) == OWN_NAME
    kept = renamed.split(OWN_NAME.encode())
    times = len(kept) - 1
    size = (len(body) - sum(map(len, kept))) // times
    old = body[len(kept[0]) : len(kept[0]) + size]
    assert old.decode("utf-8", "replace") == model
    assert old.join(kept) == body


# --- the path

segments = st.sampled_from(
    (
        *("v1", "models", "a", ".", "..", "...", "", "%2e", "%2E%2e", ".%2e", "%2f", "%5c", "\\"),
        *("..%2f", "%2f..", "%252e%252e", "%25252e%2e", "..\\", "%c0%ae%c0%ae", "..;", "%00"),
        *("%25%32%65%25%32%65", "%2e%252e", "..%5c..", "..%255c", "a#", "..#", "#", "%23", "?"),
    )
)
paths = st.one_of(
    st.lists(segments, max_size=5).map(lambda parts: "/v1/" + "/".join(parts)),
    st.lists(segments, max_size=4).map(lambda parts: "/v1/" + "".join(parts)),
    st.lists(segments, max_size=4).map("/".join),
    st.text(max_size=20).map(lambda text: f"/v1/{text}"),
)


@examples(500)
@given(paths)
def test_no_relayed_path_leads_out_of_v1(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/my..file",
        "/v1/files/a%2Fb",
        "/v1/files/%C3%BC",
        "/v1/a%20b/...",
        "/v1/50%25",
        "/v1/%2541",
    ],
)
def test_paths_with_escapes_that_stay_in_v1_are_relayed(path: str) -> None:
    route = relayed(path)
    assert route is not None
    assert route.path == path


# --- headers

names = st.sampled_from(
    (
        *(b"Connection", b"connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Host"),
        *(b"Transfer-Encoding", b"Content-Length", b"Expect", b"Authorization", b"X-API-Key"),
        *(b"X-Request-Id", b"X-Router-Backend", b"X-A", b"x-b", b"Set-Cookie", b"Content-Type"),
        *(b"X-Forwarded-For", b"Forwarded", b"Proxy-Authorization", b"Proxy-Connection"),
        *(b"Cache-Control", b"X-Accel-Buffering"),
    )
)
values = st.one_of(
    st.sampled_from(
        (b"close", b"keep-alive, X-A", b"x-b,,x-a", b"chunked", b"5", b"", b"10.0.0.1", b"Host")
    ),
    st.lists(st.integers(0x20, 0xFF).filter(lambda code: code != 0x7F), max_size=8).map(bytes),
)
header_lists = st.lists(st.tuples(names, values), max_size=6)

SECRET = {b"authorization", b"x-api-key"}
WRITTEN_BY_THE_ROUTER = {b"host", b"content-length", b"expect", b"x-request-id"}


def lines_of(data: bytes) -> list[tuple[bytes, bytes]]:
    message = read_request(b"GET / HTTP/1.1\r\n" + data + b"\r\n")
    assert message.rest == b""
    return message.fields


def named(given: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """Return the names that `Connection` lists, found in another way than the router does."""
    joined = b",".join(value for name, value in given if name.lower() == b"connection")
    return {part.strip().lower() for part in joined.lower().split(b",")}


def stripped(pairs: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip(b" \t")) for name, value in pairs]


@examples(300)
@given(header_lists, st.sampled_from((None, "10.0.0.9")))
def test_a_server_gets_all_headers_but_those_of_the_connection_and_keys(
    given: list[tuple[bytes, bytes]], proxy: str | None
) -> None:
    got = lines_of(headers.to_backend(fields_of(given), proxy))
    gone = HOP_BY_HOP | SECRET | WRITTEN_BY_THE_ROUTER | named(given)
    chain = [value for name, value in got if name.lower() == b"x-forwarded-for"]
    assert len(chain) == (proxy is not None)
    gone |= headers.FORWARDING if proxy is None else {b"x-forwarded-for"}
    rest = [pair for pair in got if pair[0].lower() != b"x-forwarded-for"]
    assert rest == stripped([pair for pair in given if pair[0].lower() not in gone])


@examples(200)
@given(header_lists, st.booleans())
def test_a_client_gets_all_headers_but_those_of_the_connection_and_the_router(
    given: list[tuple[bytes, bytes]], is_event_stream: bool
) -> None:
    got = lines_of(headers.to_client(fields_of(given), is_event_stream=is_event_stream))
    marks = [(b"x-accel-buffering", b"no"), (b"cache-control", b"no-cache")]
    gone = HOP_BY_HOP | named(given)
    gone |= {
        b"content-length",
        b"x-request-id",
        b"x-router-backend",
        b"x-router-attempts",
        b"x-router-reason",
    }
    if is_event_stream:
        gone |= {name for name, _ in marks}
    expected = stripped([pair for pair in given if pair[0].lower() not in gone])
    assert got == expected + (marks if is_event_stream else [])


@examples(200)
@given(header_lists, st.sets(names.map(bytes.lower), max_size=3))
def test_lines_are_taken_out_by_name_and_only_they(
    given: list[tuple[bytes, bytes]], barred: set[bytes]
) -> None:
    given = [pair for pair in given if b"\x85" not in pair[1]]
    lines = b"".join(b"%b: %b\r\n" % pair for pair in given)
    kept = [pair for pair in given if pair[0].lower() not in barred]
    assert headers.without(lines, frozenset(barred)) == b"".join(b"%b: %b\r\n" % p for p in kept)


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(("10.0.0.1:80", "[fd00::1]:80", "unknown", "", "_x", "::ffff:10.0.0.1", "[")),
    st.text(max_size=8),
)


@examples(200)
@given(addresses, st.lists(addresses, max_size=4).map(", ".join))
def test_any_chain_of_proxies_gives_an_address_or_the_peer(peer: str, chain: str) -> None:
    proxies = TrustedProxies(("10.0.0.0/8", "fd00::/8"))
    found = proxies.client(peer, chain)
    assert found == peer or not proxies.trusts(found) or found in chain or "ffff" in chain
    if not proxies.trusts(peer):
        assert found == peer


@examples(300)
@given(
    st.one_of(
        st.binary(max_size=140), st.text(max_size=140).map(str.encode), st.sampled_from(TOKENS)
    )
)
def test_a_request_id_that_is_used_can_stand_in_a_header_and_a_log(given_id: bytes) -> None:
    used = headers.usable_request_id(given_id)
    assert used is None or used.encode() == given_id
    if used is not None:
        assert used.isascii()
        assert used.isprintable()
        assert 0 < len(used) <= 128
        assert " " not in used
