"""What the router has to know of an engine: where to ask, and how to read the answers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from mvllm_router.pool import Sample

# Models of one server, and characters of a name: a server's path of a file may be one. What is
# beyond is a mistake or malice, and would be in logs, metrics and answers.
_MOST_MODELS = 4096
_MOST_ALIASES = 16  # of one model: its whole entry is shown under each
_LONGEST_NAME = 1024
_LONGEST_VERSION = 100


class Engine:
    """The dialect of an OpenAI-speaking server; also what any unknown one is taken for.

    Subclasses change what differs. All paths are GET; None means there is nothing to ask.
    """

    name = "openai"
    health_path = "/v1/models"
    metrics_path: str | None = None
    models_path: str | None = "/v1/models"
    capacity_path: str | None = None
    default_capacity = 8
    one_at_a_time = False
    # Seconds; some engines suffer from being asked more often.
    min_scrape_interval = 0.0

    def read_metrics(self, text: str) -> Sample:
        """Read the text of `metrics_path`; what it does not say stays None."""
        return Sample()

    def read_capacity(self, document: object) -> int | None:
        """Read how many requests run at once from the JSON of `capacity_path`."""
        return None

    def read_version(self, document: object) -> str | None:
        """Read the engine's version from the JSON of `capacity_path`."""
        return None

    def accepts_request_id(self, request_id: str) -> bool:
        """Tell whether the server takes this `x-request-id` without an error."""
        return True


def shown_version(value: object) -> str | None:
    """Return a version that an engine tells, if it is one that can be shown."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_VERSION and value.isprintable():
        return value
    return None


def is_uuid(text: str) -> bool:
    """Tell whether `text` is a UUID, with dashes or as 32 hexadecimal digits."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def read_models(document: object) -> dict[str, Mapping[str, Any]] | None:
    """Read the JSON of /v1/models into {name: entry}; None when it is no such list.

    llama-server lists further names of a model in `aliases`. Names that cannot be shown are left
    out, and what is beyond the first few thousand.
    """
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    named = [
        (name, entry)
        for entry in entries
        if isinstance(entry, dict)
        for name in (entry.get("id"), *_list(entry.get("aliases"))[:_MOST_ALIASES])
    ]
    usable = ((name, entry) for name, entry in named if isinstance(name, str) and _is_shown(name))
    return dict(islice(usable, _MOST_MODELS))


def _is_shown(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable()


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
