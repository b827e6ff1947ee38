"""What all servers on FastAPI and uvicorn have in common: their heads, and paths they lack."""

from __future__ import annotations

from collections.abc import Mapping

from mvllm_router.sim.dialects.base import Asked, Page, dumps, end_head, http_date, reason


def uvicorn_head(page: Page, length: int | None) -> bytes:
    """Status line and headers as uvicorn writes them, names in lower case."""
    lines = [f"HTTP/1.1 {page.status} {reason(page.status)}"]
    lines += [f"date: {http_date()}", "server: uvicorn"]
    if length is not None:
        lines.append(f"content-length: {length}")
    if page.content_type is not None:
        lines.append(f"content-type: {page.content_type}")
    lines += [f"{name}: {value}" for name, value in page.extra]
    if not page.drop:  # else the application has crashed below what adds this
        lines.append("vary: Origin")
    if length is None:
        lines.append("transfer-encoding: chunked")
    if page.close:
        lines.append("connection: close")
    return end_head(lines)


def off_route(asked: Asked, methods: Mapping[str, str]) -> Page:
    """The answer where there is no page; `methods` has the method of each path that there is."""
    if asked.path in methods:
        extra = (("allow", methods[asked.path]),)
        return Page(405, b'{"detail":"Method Not Allowed"}', extra=extra)
    bare = asked.path.rstrip("/")
    if bare in methods and bare != asked.path:
        place = f"http://{asked.headers.get('host', '')}{bare}"
        return Page(307, b"", None, (("location", place),))
    return Page(404, b'{"detail":"Not Found"}')


def api_page(title: str, version: str) -> Page:
    """/openapi.json, without what it says of the paths."""
    info = {"title": title, "version": version}
    return Page(200, dumps({"openapi": "3.1.0", "info": info, "paths": {}}))
