"""The beginning of a prompt as a chain of numbers, each of which stands for all before it."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from mvllm_router.policies.base import Wish

# Bytes. Prompts that part before the first end have nothing in common that is worth a detour: to
# read as much again takes a server no time that anybody would feel. What stands behind the last
# counts no more.
_FIRST, _LAST = 512, 256 * 1024
# Bytes between two ends, at least; of longer prompts, it is an eighth of what stands before.
_APART = 128


def _ends() -> list[int]:
    ends = [_FIRST]
    while ends[-1] < _LAST:
        ends.append(ends[-1] + max(_APART, ends[-1] // 8 // _APART * _APART))
    return ends


ENDS = _ends()
_PIECES = [slice(begin, end) for begin, end in zip([0, *ENDS], ENDS, strict=False)]
SIZES = [piece.stop - piece.start for piece in _PIECES]  # bytes of each block


class _Body(msgspec.Struct):
    """What a prompt is made of, in the order in which chat templates write it."""

    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)


def text_of(wish: Wish) -> bytes:
    """Return what the model reads, as the client wrote it; b"" where that is not to be seen.

    Two turns of one chat have all of the first one in common, but for the bracket at its end.
    """
    if wish.body[:1] != b"{":
        return b""
    try:
        body = _body.decode(wish.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
    parts = body.tools, body.system, body.instructions, body.messages, body.prompt, body.input
    return b"".join([bytes(part) for part in parts if len(part)])


def blocks_of(wish: Wish) -> list[int]:
    """Return a number for each whole block of the prompt, as `ENDS` divides it.

    Two prompts have the n-th number in common when all of them up to there is the same, and the
    model is.
    """
    text = text_of(wish)
    found: list[int] = []
    number = hash(wish.model)
    for piece in _PIECES[: bisect_right(ENDS, len(text))]:
        number = hash((number, text[piece]))
        found.append(number)
    return found
