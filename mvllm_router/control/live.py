"""The configuration that runs: what the file says, and what was changed since beside it.

Reloads and changes come one after the other. Each is carried out whole or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mvllm_router.config import Config, ConfigDiff, ConfigError, Overlay, ServerSpec, changes
from mvllm_router.config.problems import Problem
from mvllm_router.control.edit import Edit, write_edited
from mvllm_router.errors import BadRequest, RouterError
from mvllm_router.pool.events import Events
from mvllm_router.tasks import spawn

log = logging.getLogger(__name__)

T = TypeVar("T")

# Looks at a file that has become empty, and seconds between them: an editor that writes into the
# file empties it first.
_LOOKS, _BETWEEN_LOOKS = 5, 0.1
# What becomes of a launch.
_LAUNCHES = {
    "added": "launch {0} is added",
    "removed": "launch {0} is drained and ended",
    "scaled": "launch {0} has another number of servers",
    "changed": "launch {0} is changed for servers that start from now on: "
    "`router restart --rolling {0}`",
}
_BLANK = "The file is empty; `servers = []` under [servers] stands for no servers."


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended. `refused` says why nothing was changed; empty when it went well.

    `problems` are those of the file, when it is the file that is wrong.
    """

    changed: ConfigDiff = field(default_factory=ConfigDiff)
    refused: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody wants changed.

    `overlay` lies over the file afterwards. `edit` makes the file's new text of its old one, where
    the change is to be in the file as well; it raises CannotEdit. `then` is done at the end.
    """

    overlay: Overlay
    edit: Edit | None = None
    then: Callable[[], object] = lambda: None


def _anything() -> None:
    """Allow it, whatever runs."""


class Live:
    """Holds the configuration; `use` carries a new one out."""

    def __init__(
        self,
        config: Config,
        events: Events,
        use: Callable[[Config, ConfigDiff], Awaitable[None]],
        reread: Callable[[], Config] | None = None,
    ) -> None:
        """Begin with `config`.

        Args:
            use: takes a configuration into use and what it changes; it raises ValueError before
                it has changed anything.
            reread: loads the configuration again; None when there is no file.
        """
        self.config = config  # that runs: `overlay` over `base`
        self.base = config  # as loaded
        self.overlay = Overlay()
        self.launched: tuple[ServerSpec, ...] = ()  # that the router itself starts
        self.stopping = False
        self.lock = asyncio.Lock()
        self.reread = reread
        self._events = events
        self._use = use
        self._revision = 0
        # Another router, or this one started anew, must not take the tag for one of its own.
        self._epoch = f"{random.getrandbits(32):08x}"

    @property
    def etag(self) -> str:
        """What `If-Match` has to be for a change of this very configuration."""
        return f'"{self._epoch}-config-{self._revision}"'

    async def reload(self, allowed: Callable[[], None] = _anything) -> Reloaded:
        """Read the configuration again and use it; a bad one is refused and changes nothing.

        The file's watch, SIGHUP and the route all come here; an event tells how it went.

        Raises:
            RouterError: `allowed`, which is called when it is this one's turn, did.
        """

        async def work() -> Reloaded:
            allowed()
            return await self._reload()

        return await self._in_turn(work)

    async def apply(self, config: Config) -> ConfigDiff:
        """Change to `config`: servers that stay keep their counts, health and connections.

        Raises:
            ValueError: it cannot be carried out; nothing has been changed.
        """
        async with self.lock:
            return await self._apply_loaded(config)

    async def employ(self, launched: tuple[ServerSpec, ...]) -> None:
        """Use these servers, which the router itself has started, beside those of the file."""
        async with self.lock:
            self.launched = launched
            await self._apply(self.base, self.overlay)

    async def change(self, plan: Callable[[], Change]) -> None:
        """Carry out what `plan`, called when it is its turn, returns.

        Raises:
            RouterError: `plan` did, or the file cannot be changed so. Nothing has been changed.
        """
        await self._in_turn(lambda: self._change(plan))

    async def _in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it alone, and to its end: a client that leaves must not end it half-way."""
        outcome: list[T] = []
        refused: list[RouterError] = []

        async def alone() -> None:
            try:
                async with self.lock:
                    outcome.append(await work())
            except RouterError as error:
                refused.append(error)

        await asyncio.shield(spawn(alone(), "change of the configuration"))
        if refused:
            raise refused.pop()
        return outcome[0]

    async def _reload(self) -> Reloaded:
        if self.reread is None:
            return Reloaded(refused="The router runs without a file: there is nothing to reload.")
        if self.stopping:
            return Reloaded(refused="The router is stopping.")
        try:
            config = await self._written(self.reread)
            for warning in config.warnings:
                log.warning("%s", warning.render().removeprefix("warning: "))
            return Reloaded(await self._apply_loaded(config))
        except (ConfigError, ValueError) as error:
            self._events.add(
                "reload", "", f"the new configuration is refused:\n{error}", logging.ERROR
            )
            problems = error.problems if isinstance(error, ConfigError) else ()
            return Reloaded(refused=str(error), problems=problems)

    async def _written(self, reread: Callable[[], Config]) -> Config:
        """Read the file when it is not just being written.

        Raises:
            ConfigError: it is wrong.
            ValueError: it stays empty, and was not.
        """
        config = reread()
        for _ in range(_LOOKS - 1):
            if not config.is_blank or self.base.is_blank:
                return config
            await asyncio.sleep(_BETWEEN_LOOKS)
            config = reread()
        if config.is_blank and not self.base.is_blank:
            raise ValueError(_BLANK)
        return config

    async def _change(self, plan: Callable[[], Change]) -> None:
        if self.stopping:
            raise BadRequest("The router is stopping.")
        change = plan()
        base = self.base
        if change.edit is not None:
            base = await write_edited(base.path, change.edit, self.reread)
        try:
            await self._apply(base, change.overlay)
        except ValueError as error:  # what else was edited in the file
            raise BadRequest(f"The new configuration is refused: {error}") from None
        change.then()

    async def _apply_loaded(self, base: Config) -> ConfigDiff:
        diff = await self._apply(base, self.overlay)
        if diff:
            self._events.add("reload", "", _summary(diff, len(self.config.servers)))
        return diff

    async def _apply(self, base: Config, overlay: Overlay) -> ConfigDiff:
        whole = replace(base, servers=(*base.servers, *self.launched)) if self.launched else base
        overlay = overlay.pruned(whole)
        config = overlay.over(whole)
        diff = changes(self.config, config)
        if diff:
            await self._use(config, diff)
            self._revision += 1
        self.base, self.overlay, self.config = base, overlay, config
        return diff


def _summary(diff: ConfigDiff, servers: int) -> str:
    parts = [f"configuration reloaded, {servers} servers"]
    live = (*diff.live, *(f"key {name}" for name in diff.keys))
    if live:
        parts.append(f"changed: {', '.join(live)}")
    parts += [_LAUNCHES[change].format(name) for name, change in diff.launches.items()]
    if diff.needs_restart:
        parts.append(f"needs a restart: {', '.join(diff.needs_restart)}")
    return "; ".join(parts)
