"""GET /router/requests: the last requests, each with where it went and why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mvllm_router.pool import Pool
from mvllm_router.pool.requests import CLIENT_LEFT, Ended

LIMIT = 100
MOST = 500
# Requests after which others get their turn: a dashboard asks once a second.
_AT_ONCE = 25


async def requests_document(pool: Pool, limit: int = LIMIT, after: int = 0) -> dict[str, object]:
    """Return the newest requests behind the number `after`, `limit` at most, the oldest first."""
    # What monotonic seconds are on the wall's clock.
    offset = pool.wall() - pool.monotonic()
    newest, entries = pool.requests.newest, []
    for number, ended in pool.requests.after(after, limit):
        entries.append(_request(number, ended, offset))
        if not len(entries) % _AT_ONCE:
            await asyncio.sleep(0)
    return {"requests": entries, "newest": newest}


def _request(number: int, ended: Ended, offset: float) -> Mapping[str, object]:
    attempts = ended.attempts
    left = ended.status == CLIENT_LEFT
    tried = [
        {"server": backend.name, "outcome": outcome or ("the client left" if left else "")}
        for backend, outcome in attempts
    ]
    prompt, completion = ended.tokens or (None, None)
    first = ended.seconds_to_first
    return {
        "number": number,
        "at": round(ended.arrived + offset, 3),
        "id": ended.id,
        "method": ended.method,
        "path": ended.path,
        "model": ended.model,
        "status": ended.status,
        "key": ended.key or None,
        "client": ended.client,
        "tried": tried,
        "server": attempts[-1][0].name if attempts and ended.answered else None,
        "attempts": len(attempts),
        "why": _why(ended, len(attempts)),
        "ttft_seconds": None if first is None else round(first, 6),
        "duration_seconds": round(ended.ended - ended.arrived, 6),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "stream": first is not None,
        "error": ended.error,
    }


def _why(ended: Ended, attempts: int) -> str:
    """Say in a phrase why that server was chosen; "" where none answered."""
    if ended.why is None:
        return ""
    if attempts > len(ended.tried):
        return "asked again: no other has the model"
    if attempts == 1:
        return ended.why
    failed = "1 attempt" if attempts == 2 else f"{attempts - 1} attempts"
    return f"{ended.why}, of those left after {failed}"
