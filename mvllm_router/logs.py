"""Logs on stderr or in a file: lines for people, or JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler

# Logs are bounded: one file and two older ones of this many bytes each.
_FILE_BYTES = 10 * 1024 * 1024
_OLD_FILES = 2


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO  message`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        text = f"{at} {record.levelname:<7} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One object per line, times in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, style: str, file: str) -> None:
    """Send the package's logs to `file` ("" is stderr) in the `style` "text" or "json".

    Raises:
        OSError: the file cannot be written.
    """
    handler: logging.Handler
    if file:
        handler = RotatingFileHandler(file, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("mvllm_router").setLevel(level.upper())
