"""What the keys do that change the router. Each ends in a toast and in a line of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mvllm_router.client import NotAuthorised, Refused, Unreachable
from mvllm_router.config.problems import printable
from mvllm_router.dashboard import changes
from mvllm_router.dashboard.board import only_server_of
from mvllm_router.dashboard.changes import Change
from mvllm_router.dashboard.document import Document, number, text
from mvllm_router.dashboard.looking import Looking
from mvllm_router.dashboard.screens.dialog import Answer, Dialog, Field
from mvllm_router.dashboard.source import Source, hint_for

_TOLD = 3  # lines of an answer that a toast shows


class Changing(Looking):
    """Drain, enable, weight, capacity, add, remove, reload."""

    def __init__(self, source: Source, **more: Any) -> None:
        """For the arguments see `Core`."""
        super().__init__(source, **more)
        self._turn = asyncio.Lock()  # changes go out one after the other, as they were asked for

    def action_drain(self) -> None:
        self._to_chosen(self.action_drain_of)

    def action_drain_of(self, name: str) -> None:
        """Drain a server; ask once when a model would be left without any."""
        if self._is_refused():
            return
        models = only_server_of(self.board.servers, name)
        if not models:
            self._do(changes.drain(name))
            return
        lines = (
            f"No other server that is up has {_some(models)}.",
            "Requests for that are refused until one has it.",
        )
        self._ask(lambda _: changes.drain(name), f"Drain {name}?", lines, yes="Drain")

    def action_enable(self) -> None:
        self._to_chosen(self.action_enable_of)

    def action_enable_of(self, name: str) -> None:
        if not self._is_refused():
            self._do(changes.enable(name))

    def action_weigh(self, steps: int) -> None:
        self._to_chosen(lambda name: self._weigh(name, steps))

    def _weigh(self, name: str, steps: int) -> None:
        async def change() -> Change:  # from what the weight is by then, and not in the picture
            return changes.weigh(name, await self.source.get(changes.path_of(name)), steps)

        if not self._is_refused():
            self._in_turn(name, change)

    def action_capacity(self) -> None:
        server = self.board.server(self.chosen)
        if server is None or self._is_refused():
            return
        name = text(server, "name")
        asked = number(server, "max_concurrent_requests")
        fields = (
            Field("capacity", "capacity", f"{asked:.0f}" if asked else "", _shown_capacity(server)),
            Field("weight", "weight", f"{number(server, 'weight') or 1:.15g}", "a number above 0"),
        )
        self._ask(
            lambda answer: changes.resize(name, server, answer.values, write=answer.write),
            f"Capacity of {name}",
            fields=fields,
            yes="Change",
            may_write=True,
        )

    def action_add(self) -> None:
        if self._is_refused():
            return
        fields = (
            Field("url", "address", "", "such as http://gpu1:8000"),
            Field("name", "name", "", "may be left out"),
            Field("capacity", "capacity", "", "requests at once; left out, the engine is asked"),
            Field("api_key", "API key", "", "that the server wants; may be left out", secret=True),
        )
        self._ask(
            lambda answer: changes.add(answer.values, write=answer.write),
            "Add a server",
            fields=fields,
            yes="Add",
            may_write=True,
        )

    def action_remove(self) -> None:
        self._to_chosen(self.action_remove_of)

    def action_remove_of(self, name: str) -> None:
        if self._is_refused():
            return
        lines = ["It gets no new requests; those that run on it finish."]
        if models := only_server_of(self.board.servers, name):
            lines.append(f"No other server that is up has {_some(models)}.")
        self._ask(
            lambda answer: changes.remove(name, write=answer.write),
            f"Remove {name}?",
            lines,
            yes="Remove",
            may_write=True,
        )

    def action_reload(self) -> None:
        if self._is_refused():
            return
        lines = ("The router reads its file again.", "A file with a mistake changes nothing.")
        self._ask(lambda _: changes.reload(), "Reload?", lines, yes="Reload")

    # --- how it is done

    def _to_chosen(self, action: Callable[[str], None]) -> None:
        if self.chosen:
            action(self.chosen)

    def _is_refused(self) -> bool:
        """Say so where nothing may be changed."""
        if self.read_only:
            self.tell("this dashboard only looks (--read-only)", is_error=True)
        return self.read_only

    def _ask(
        self,
        make: Callable[[Answer], Change],
        title: str,
        text: Sequence[str] = (),
        fields: Sequence[Field] = (),
        *,
        yes: str,
        may_write: bool = False,
    ) -> None:
        """Ask, and make the change that the answer comes to; for the rest see `Dialog`."""
        dialog = Dialog(title, text, fields, yes=yes, may_write=may_write, check=make)
        self.push_screen(dialog, lambda answer: self._do(make(answer)) if answer else None)

    def _do(self, change: Change) -> None:
        async def made() -> Change:
            return change

        self._in_turn(change.server, made)

    def _in_turn(self, server: str, make: Callable[[], Awaitable[Change]]) -> None:
        self.run_worker(self._send(server, make), group="change")

    async def _send(self, server: str, make: Callable[[], Awaitable[Change]]) -> None:
        """Make a change when its turn comes, and tell what it came to."""
        try:
            async with self._turn:
                change = await make()
                answer = await self.source.send(
                    change.method, change.path, change.body, change.match
                )
        except (Unreachable, NotAuthorised, Refused) as error:
            hint = hint_for(error)
            words = changes.why_not(error) + (f" ({hint})" if hint else "")
            whose = f"{server}: " if server else ""
            self.tell(whose + _first_lines(words), server, is_error=True)
            self.record(server, f"not done: {words}")
        else:
            words = printable(changes.outcome(change, answer))
            self.tell(words, server)
            self.record("", words)
        self.look_now()


def _first_lines(words: str) -> str:
    """Return as much as a toast has room for; all of it is in the events."""
    lines = words.split("\n")
    more = len(lines) - _TOLD
    return "\n".join([*lines[:_TOLD], *([f"… and {more} more (2)"] if more > 0 else [])])


def _some(models: list[str]) -> str:
    more = f" and {len(models) - 2} more" if len(models) > 2 else ""
    return ", ".join(models[:2]) + more


def _shown_capacity(server: Document) -> str:
    return f"requests at once, now {number(server, 'max_capacity') or 0:g}; empty: the engine's own"
