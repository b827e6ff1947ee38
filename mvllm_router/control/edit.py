"""Writes a changed configuration file in the place of the old one: all of it, or nothing."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from mvllm_router.config import CannotEdit, Config, ConfigError, parse
from mvllm_router.errors import BadRequest

Edit = Callable[[str], str]


async def write_edited(
    path: Path | None,
    edit: Edit,
    reread: Callable[[], Config] | None,
    use: Callable[[Config], Awaitable[object]],
) -> None:
    """Let `edit` make the new text of the file at `path`, write it, and `use` what it says then.

    Whatever fails, `use` as well, the file is put back: it says what the router runs with.

    Raises:
        BadRequest: there is no file, or it cannot be changed so.
    """
    if path is None or reread is None:
        raise BadRequest("The router runs without a file: there is nothing to write to.")
    try:
        # Not in the loop: a file of hundreds of servers takes a while to be read twice.
        before, after = await asyncio.to_thread(_edit, path, edit)
        try:
            await use(reread())
        except Exception:  # also: what has a say beside the file does not go together with it
            await _put_back(path, before, after)
            raise
    except CannotEdit as error:
        raise BadRequest(f"{path} was not written: {error}.") from None
    except ConfigError as error:
        raise BadRequest(f"{path} was not written:\n{error}") from None
    except OSError as error:
        raise BadRequest(f"{path} cannot be written: {error.strerror or error}.") from None


async def _put_back(path: Path, before: bytes, after: bytes) -> None:
    try:
        await asyncio.to_thread(_replace, path, after, before)
    except OSError as error:
        raise BadRequest(
            f"{path} has the change, which is not in use, and cannot be put back: "
            f"{error.strerror or error}."
        ) from error


def _edit(path: Path, edit: Edit) -> tuple[bytes, bytes]:
    """Carry it out; return the content of the file before and after."""
    before = path.read_bytes()
    try:
        text = edit(before.decode("utf-8"))
    except UnicodeDecodeError:
        raise CannotEdit("the file is not UTF-8") from None
    parse(text, path)
    after = text.encode("utf-8")
    _replace(path, before, after)
    return before, after


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Put `after` in the place of `before`, for all who look at the same time.

    Raises:
        CannotEdit: the file has another content by now.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    was = target.stat()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        if hasattr(os, "chown"):
            with suppress(PermissionError):  # only root may, and only for root it matters
                os.chown(name, was.st_uid, was.st_gid)
        Path(name).chmod(stat.S_IMODE(was.st_mode))
        if target.read_bytes() != before:
            raise CannotEdit("somebody else has just changed it")
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
