"""How an attempt can fail before any of its answer has gone out."""

from __future__ import annotations

from enum import Enum


class Failure(str, Enum):
    """The value is what metrics, logs and error texts say."""

    REFUSED = "connection refused"
    UNREACHABLE = "cannot connect"
    CONNECT_TIMEOUT = "connect timeout"
    RESET = "connection reset"
    GARBAGE = "not an HTTP answer"
    SILENT = "silent for too long"
