"""What a change that is to be written makes of the file's text."""

from __future__ import annotations

from mvllm_router.config import (
    Overlay,
    ServerSpec,
    entry_of,
    with_server,
    with_values,
    without_server,
)
from mvllm_router.control.edit import Edit
from mvllm_router.control.live import Live
from mvllm_router.errors import BadRequest


def adding(live: Live, spec: ServerSpec) -> Edit:
    """Return what puts a server into the file."""
    stands_there = spec.name in live.base.server_places  # and was left out since

    def edit(text: str) -> str:
        kept = without_server(text, spec.name) if stands_there else text
        return with_server(kept, entry_of(spec))

    return edit


def changing(live: Live, overlay: Overlay, name: str) -> Edit:
    """Return what puts all that `overlay` changes of a server into the file.

    Raises:
        BadRequest: there is nothing of it to write, or it does not come from the file.
    """
    if name in overlay.added:
        return adding(live, overlay.added[name])
    _check_in_file(live, name)
    values = dict(overlay.changed.get(name, {}))
    if not values:
        raise BadRequest(
            f"Nothing of `{name}` is to be written: `state` is not kept in a file, "
            "`weight` and `max_concurrent_requests` are."
        )
    return lambda text: with_values(text, name, values)


def removing(live: Live, name: str) -> Edit | None:
    """Return what takes a server out of the file; None where it was added beside it.

    Raises:
        BadRequest: it comes from the command line.
    """
    if name in live.overlay.added and name not in live.base.server_places:
        return None
    _check_in_file(live, name)
    return lambda text: without_server(text, name)


def _check_in_file(live: Live, name: str) -> None:
    if name not in live.base.server_places:
        raise BadRequest(
            f"`{name}` is not from a file but from the command line: nothing is written. "
            "Without `write` the change holds until the router is started anew."
        )
