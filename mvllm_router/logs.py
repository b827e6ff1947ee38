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

# Messages quote what clients and servers sent; it must not steer a terminal, nor turn what
# stands in a line around: control characters, separators of lines, marks of writing direction.
_STEERING = (
    *(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"),
    *(0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)),
)
_AS_TEXT = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _STEERING}
# JSON has its own escapes for those below 32.
_IN_JSON = {code: f"\\u{code:04x}" for code in _STEERING if code >= 32}


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO  message`, with further lines set in, so that none looks like an entry."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        message = record.getMessage()
        if record.exc_info:
            message += f"\n{self.formatException(record.exc_info)}"
        shown = message.translate(_AS_TEXT).replace("\n", "\n    ")
        return f"{at} {record.levelname:<7} {shown}"


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
        return json.dumps(line, ensure_ascii=False).translate(_IN_JSON)


def configure(level: str, style: str, file: str) -> None:
    """Send the package's logs to `file` ("" is stderr) in the `style` "text" or "json".

    Raises:
        OSError: the file cannot be written.
    """
    handler: logging.Handler
    if file:
        handler = RotatingFileHandler(
            file,
            maxBytes=_FILE_BYTES,
            backupCount=_OLD_FILES,
            encoding="utf-8",
            errors="backslashreplace",  # as stderr does; a log line is never lost
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("mvllm_router").setLevel(level.upper())
