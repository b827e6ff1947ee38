"""How many files, and so connections, the process may have open."""

from __future__ import annotations

import errno
import logging
import sys

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

# Systems that have no limit name absurd figures, and some allocate by them.
_MOST = 1_048_576
# macOS says that there is no limit, and then takes no figure above this one.
_MOST_ON_MACOS = 10_240
# Files that are no connections of requests: the listener, logs, questions to servers, ...
_OTHERS = 64
# So few connections that a limit below makes no difference any more.
_FEWEST = 16


def raise_limit() -> int:
    """Let the process open as many files as the system allows; return how many that is."""
    if sys.platform == "win32":  # sockets are no files there
        return _MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now, allowed = _bounded(soft), _bounded(hard)
    for limit in (allowed, min(allowed, _MOST_ON_MACOS)):
        if limit <= now:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError) as error:
            log.debug("the limit of open files cannot be raised to %d: %s", limit, error)
        else:
            log.debug("up to %d open files instead of %d", limit, soft)
            return limit
    return now


def _bounded(limit: int) -> int:
    """Return the limit; "none" is -1 on some systems and a very large number on others."""
    return limit if 0 <= limit < _MOST else _MOST


def most_connections(files: int) -> int:
    """Return how many clients may be connected when `files` may be open: each needs a server."""
    return max(_FEWEST, (files - _OTHERS) // 2)


def is_out_of_files(error: BaseException) -> bool:
    """Tell whether an operation failed because no more files may be opened."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
