"""The tokens of a prompt, as a server that has the model splits it; for policies that need them."""

from __future__ import annotations

import logging
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from mvllm_router.config import ServerSpec
from mvllm_router.front.steps import in_task
from mvllm_router.policies import Policies
from mvllm_router.policies.kv_index import Prompt
from mvllm_router.policies.kv_wire import pack
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy.ask import Ask

log = logging.getLogger(__name__)

# POSTs a JSON document to a path of a server within some seconds; None is any trouble.
AskServer: TypeAlias = "Callable[[ServerSpec, str, bytes, float], Awaitable[bytes | None]]"

_CHAT, _COMPLETION = "/v1/chat/completions", "/v1/completions"
# Bytes of a body that are split into tokens. Shorter ones are read faster than split; longer ones
# would keep the event loop, the router's and the server's, for too long.
_SHORTEST, _LONGEST = 512, 512 * 1024
# Seconds: a request waits no longer for its tokens, and for each byte of it.
_TIMEOUT, _TIMEOUT_PER_BYTE = 0.25, 1e-6
# Seconds for which a server is not asked again that gave no answer in time.
_REST = 2.0
# Tokens of all prompts that are remembered; each takes 4 bytes, and 8 more with its blocks.
_REMEMBERED = 2_000_000
# Parts of a message that are no text: servers fetch and measure pictures to count their tokens.
_NOT_TEXT = re.compile(rb'"type"\s*:\s*"(?:image|video|audio|input_|file)')


_NOTHING = msgspec.Raw()


class _Prompt(msgspec.Struct, omit_defaults=True):
    """What vLLM's /tokenize takes of a chat or a completion, under the same names."""

    model: str = ""
    messages: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    add_generation_prompt: msgspec.Raw = _NOTHING
    continue_final_message: msgspec.Raw = _NOTHING
    add_special_tokens: msgspec.Raw = _NOTHING
    chat_template: msgspec.Raw = _NOTHING
    chat_template_kwargs: msgspec.Raw = _NOTHING


class _Salted(msgspec.Struct):
    cache_salt: Any = None


class _Answer(msgspec.Struct):
    tokens: msgspec.Raw = _NOTHING


_prompt = msgspec.json.Decoder(_Prompt)
_salted = msgspec.json.Decoder(_Salted)
_answer = msgspec.json.Decoder(_Answer)
_ids = msgspec.json.Decoder(list[int])
_NOT_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Tokens:
    """Finds the tokens of prompts, and remembers those of the last ones."""

    def __init__(self, pool: Pool, policies: Policies, ask: AskServer) -> None:
        self.policies = policies  # replaced by a reload
        self._pool = pool
        self._ask = ask
        self._known: OrderedDict[bytes, Prompt] = OrderedDict()  # the last used at the end
        self._size = 0  # tokens of all
        self._rests: dict[str, float] = {}  # servers, and until when (monotonic seconds)

    async def find(self, ask: Ask) -> None:
        """Give `ask` its prompt, if its policy needs it, and it can be had soon.

        It is the policy's business to choose without.
        """
        candidates = self._pool.candidates(ask.model)
        if not self.policies.of(ask).needs_tokens(candidates):
            return
        wanted = _wanted(ask)
        server = self._server(candidates) if wanted else None
        if wanted is None or server is None:
            return
        wanted.model = server.own_name(ask.model) if ask.model else ""
        adapter, salt = _adapter(server, wanted.model), _salt(ask.body)
        question = msgspec.json.encode(wanted)
        key = blake2b(b"\0".join((adapter.encode(), salt.encode(), question))).digest()
        prompt = self._known.get(key)
        if prompt is None:
            tokens = await self._tokens(server, wanted, question)
            if tokens is None:
                return
            prompt = Prompt(tokens, adapter, salt)
            self._remember(key, prompt)
        else:
            self._known.move_to_end(key)
        ask.prompt = prompt

    def _server(self, candidates: Sequence[Backend]) -> Backend | None:
        """Return one that splits prompts."""
        now = self._pool.monotonic()
        able = [
            backend
            for backend in candidates
            if backend.engine == "vllm" and self._rests.get(backend.name, 0.0) <= now
        ]
        return random.choice(able) if able else None

    async def _tokens(self, server: Backend, wanted: _Prompt, question: bytes) -> bytes | None:
        if bytes(wanted.prompt).startswith(b"["):
            return _packed(bytes(wanted.prompt))
        await in_task()
        timeout = _TIMEOUT + _TIMEOUT_PER_BYTE * len(question)
        answer = await self._ask(server.spec, "/tokenize", question, timeout)
        tokens = None if answer is None else _packed(_tokens_in(answer))
        if tokens is None:
            self._let_rest(server)
        return tokens

    def _let_rest(self, server: Backend) -> None:
        now = self._pool.monotonic()
        self._rests = {name: until for name, until in self._rests.items() if until > now}
        self._rests[server.name] = now + _REST
        log.debug("%s: it did not split a prompt into tokens in time", server.name)

    def _remember(self, key: bytes, prompt: Prompt) -> None:
        before = self._known.pop(key, None)  # the same prompt came twice at a time
        self._known[key] = prompt
        self._size += len(prompt) - (len(before) if before else 0)
        while self._size > _REMEMBERED:
            _, oldest = self._known.popitem(last=False)
            self._size -= len(oldest)


def _wanted(ask: Ask) -> _Prompt | None:
    """Return what has to be split of a request, if it can be and is worth it."""
    body, path = ask.body, ask.route.path
    if path not in (_CHAT, _COMPLETION) or not _SHORTEST <= len(body) <= _LONGEST:
        return None
    try:
        found = _prompt.decode(body)
    except _NOT_READABLE:
        return None
    if path == _COMPLETION:
        is_one = bytes(found.prompt).startswith((b'"', b"["))
        special = found.add_special_tokens
        return _Prompt(prompt=found.prompt, add_special_tokens=special) if is_one else None
    found.prompt = _NOTHING
    is_text = len(found.messages) and not _NOT_TEXT.search(bytes(found.messages))
    return found if is_text else None


def _packed(ids: bytes) -> bytes | None:
    """Return token ids that are written as JSON; None if it is something else."""
    try:
        return pack(_ids.decode(ids))
    except (*_NOT_READABLE, ValueError):
        return None  # a list of prompts, say, which have no beginning in common


def _tokens_in(answer: bytes) -> bytes:
    try:
        return bytes(_answer.decode(answer).tokens)
    except _NOT_READABLE:
        return b""


def _adapter(server: Backend, model: str) -> str:
    """Return the adapter that a model's name stands for: cards of such name what they adapt."""
    card = (server.cards or {}).get(model, {})
    return model if card.get("parent") else ""


def _salt(body: bytes) -> str:
    try:
        salt = _salted.decode(body).cache_salt
    except _NOT_READABLE:
        return ""
    return salt if isinstance(salt, str) else ""
