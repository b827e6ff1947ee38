"""Routes, documents and headers: docs/http.md names all that there are, and no others."""

from __future__ import annotations

from collections.abc import Iterator

from docs_text import all_text, commands, first_cells, section, text_of

from mvllm_router.api.entries import Written, server_entry
from mvllm_router.api.health import health_document, server_models_document
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.snapshot import About, snapshot_document
from mvllm_router.auth import OPEN_PATHS, Holder
from mvllm_router.config import Config, KeySpec, ServerSpec, Settings
from mvllm_router.pool import Pool
from mvllm_router.proxy import routes
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.queue import Queue
from mvllm_router.proxy.routes import relayed
from mvllm_router.proxy.verdict import MOVES_ON
from mvllm_router.server import Router

PAGE = text_of("docs/http.md")


OWN = Router(Config(servers=(), settings=Settings(), path=None)).app.own


def keys(document: object) -> Iterator[str]:
    """All keys of a document, those of the objects in it as well; a URL is none."""
    if isinstance(document, dict):
        yield from (key for key in document if "://" not in key)
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from keys(part)


def pool_of_one() -> Pool:
    pool = Pool()
    pool.add(ServerSpec(url="http://gpu1:8000", name="gpu1"))
    return pool


def test_every_relayed_route_is_in_the_table_and_no_other() -> None:
    table = section(PAGE, "Relayed routes")
    assert set(first_cells(table)) == {*routes.KNOWN, "/v1/{path}"}


def test_relayed_routes_are_counted_under_the_names_in_the_table() -> None:
    for row in section(PAGE, "Relayed routes").splitlines():
        if row.startswith("| `/"):
            path, label = (cell.strip("|` ") for cell in row.split(" | ")[:2])
            route = relayed(path)
            assert route is not None
            assert route.label == label


def test_every_route_of_the_routers_own_is_in_the_table_and_no_other() -> None:
    assert set(first_cells(section(PAGE, "Routes of its own"))) == set(OWN.table)


def test_requests_of_examples_go_to_routes_that_exist() -> None:
    addresses = [
        word.split("127.0.0.1:8888")[1].strip("'").partition("?")[0]
        for line in commands(all_text())
        if line.startswith("curl ")
        for word in line.split()
        if "127.0.0.1:8888" in word
    ]
    assert addresses
    for path in addresses:
        assert OWN.find(path) or relayed(path)


def test_every_key_of_each_document_is_described() -> None:
    pool = pool_of_one()
    about = About("http://127.0.0.1:8888", "least_load", None, 0.0)
    key = Holder(KeySpec("alice", b""), pool.monotonic)
    waiting = Queue[None]().waiting()
    memory = {"memory_bytes": 1, "gpu_memory_bytes": 1}
    servers = [server_entry(pool, backend) | memory for backend in pool.backends.values()]
    written = Written(servers, {})
    documents = {
        "/health": health_document(pool, Settings()),
        "/load-stats": load_stats_document(pool),
        "/server-models": server_models_document(pool),
        "/router/snapshot": snapshot_document(pool, about, written, waiting, False, [key], 0),
    }
    common = set(keys(documents["/load-stats"]))
    for path, document in documents.items():
        described = PAGE.split(f"**`{path}`**:")[1].split("\n\n")[0]
        wanted = set(keys(document)) - (common if path == "/router/snapshot" else set())
        missing = {key for key in wanted if f"`{key}`" not in described}
        assert not missing, path


def test_the_open_paths_are_named() -> None:
    described = section(PAGE, "Keys")
    for path in OPEN_PATHS:
        assert f"`{path}`" in described


def test_what_moves_a_request_on_is_named() -> None:
    text = section(text_of("docs/operations.md"), "Failover")
    assert all(str(status) in text for status in MOVES_ON)


def test_every_reason_of_a_failure_is_named() -> None:
    text = section(text_of("docs/metrics.md"), "Labels")
    for failure in Failure:
        assert f"`{failure.value}`" in text
