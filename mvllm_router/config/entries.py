"""Where the entries of servers stand in the data of a file, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mvllm_router.config.address import default_name, normalise_url
from mvllm_router.config.locate import KeyPath


def entry_names(data: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Give each entry of a file that loads, under `[servers] servers = [...]` or `[[servers]]`."""
    found, path = data.get("servers", []), ("servers",)
    if isinstance(found, Mapping):
        found, path = found.get("servers", []), ("servers", "servers")  # type: ignore[assignment]
    if not isinstance(found, list):
        return
    for number, entry in enumerate(found):
        table = entry if isinstance(entry, Mapping) else {"url": entry}
        name = table.get("name") or default_name(normalise_url(str(table.get("url"))))
        yield (*path, number), str(name)
