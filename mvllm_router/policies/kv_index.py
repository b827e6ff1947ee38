"""Which servers have which beginnings of prompts in their caches, as they say themselves."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from heapq import merge

from mvllm_router.policies.kv_wire import (
    TOKEN_BYTES,
    BlockHash,
    Cleared,
    KvEvent,
    Removed,
    Stored,
)
from mvllm_router.pool import Backend

# Blocks that are kept of one source: with 16 tokens in each, 4 million tokens. One takes about 300
# bytes. What comes when so many are there is not kept: what is found of a prompt begins at its
# beginning, and that came first.
MOST_BLOCKS = 262_144

# Numbers that are tidied up when a source lets go of all it has; more are as others come.
_TIDIED = 10_000
# Servers that are named of those which have as much of a prompt.
_MANY = 32


class Prompt:
    """The tokens of a prompt, and what else its blocks in a cache depend on.

    A block is known by a number that stands for its tokens and all before them. Who is to find it
    needs no more than tokens; what engines call their blocks differs from one to the other.
    """

    __slots__ = ("_chains", "_root", "tokens")

    def __init__(self, tokens: bytes, adapter: str = "", salt: str = "") -> None:
        """`tokens` as `pack` has them."""
        self.tokens = tokens
        self._root = _root(adapter, salt)
        self._chains: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokens) // TOKEN_BYTES

    def chain(self, size: int) -> list[int]:
        """Return the numbers of its whole blocks of `size` tokens; they are worked out once."""
        found = self._chains.get(size)
        if found is None:
            found = self._chains[size] = list(_numbers(self._root, self.tokens, size))
        return found


class Source:
    """One engine's cache: a server has one, or one for each of its data-parallel ranks."""

    __slots__ = ("backend", "bit", "block_size", "group", "numbers")

    def __init__(self, backend: Backend, bit: int) -> None:
        self.backend = backend
        self.bit = bit  # stands for it in the index: a power of two
        self.block_size = 0  # in tokens; 0 until it is seen
        # Of the blocks of a model with several kinds of attention, those of one group are kept.
        self.group: int | None = None
        self.numbers: dict[BlockHash, int] = {}  # by the engine's names


class KvIndex:
    """The blocks of all sources; bounded for each of them.

    Invariant: a source's bit is in the mask of a number if and only if it has a block of that
    number. What it lets go of all at once is tidied up little by little, since the event loop waits
    meanwhile, and keeps its bit for so long; the source has another one then.
    """

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        """`most_blocks` is for each source."""
        self._most = most_blocks
        self._holders: dict[int, int] = {}  # from numbers of blocks to bits of sources
        self._sources: dict[int, Source] = {}  # by bit
        self._sizes: dict[int, int] = {}  # from sizes of blocks to the bits of who has such
        self._left: deque[tuple[int, list[int]]] = deque()  # bits, and numbers to tidy up
        self._followed: Counter[Backend] = Counter()  # how many sources each has
        self._turn = 0

    def __len__(self) -> int:
        return len(self._holders)

    def follows(self, backend: Backend) -> bool:
        """Tell whether a server has a source."""
        return backend in self._followed

    def join(self, backend: Backend) -> Source:
        """Return a new source, of which nothing is known yet."""
        source = Source(backend, self._free_bit())
        self._sources[source.bit] = source
        self._followed[backend] += 1
        return source

    def _free_bit(self) -> int:
        left = {bit for bit, _ in self._left}
        bit = 1
        while bit in self._sources or bit in left:
            bit <<= 1
        return bit

    def drop(self, source: Source) -> None:
        """Let go of a source; what it says from now on does not count."""
        if self._sources.get(source.bit) is source:
            self._resize(source, 0)
            self._leave_all(source)
            self._followed[source.backend] -= 1
            if not self._followed[source.backend]:
                del self._followed[source.backend]

    def forget(self, backend: Backend) -> None:
        """Let go of all sources of a server."""
        for source in [one for one in self._sources.values() if one.backend is backend]:
            self.drop(source)

    def clear(self, source: Source) -> None:
        """Let go of the blocks of a source."""
        if not source.numbers or self._sources.get(source.bit) is not source:
            return
        size = source.block_size
        self._resize(source, 0)
        self._leave_all(source)
        source.bit = self._free_bit()
        self._sources[source.bit] = source
        self._resize(source, size)

    def _leave_all(self, source: Source) -> None:
        del self._sources[source.bit]
        self._left.append((source.bit, list(source.numbers.values())))
        source.numbers = {}
        self._tidy(_TIDIED)

    def _tidy(self, count: int) -> None:
        """Take bits that stand for nothing any more from so many numbers."""
        while self._left and count > 0:
            bit, numbers = self._left[0]
            for _ in range(min(count, len(numbers))):
                self._leave(numbers.pop(), bit)
                count -= 1
            if not numbers:
                self._left.popleft()

    def apply(self, source: Source, events: Sequence[KvEvent]) -> None:
        """Follow what happened in a source's cache."""
        if self._sources.get(source.bit) is not source:
            return
        for event in events:
            if isinstance(event, Stored):
                self._store(source, event)
            elif isinstance(event, Removed):
                if event.group == source.group:
                    self._remove(source, event.hashes)
            elif isinstance(event, Cleared):
                self.clear(source)

    def _store(self, source: Source, event: Stored) -> None:
        self._tidy(2 * len(event.hashes))
        if source.group is None:
            source.group = event.group
        if event.group != source.group or event.block_size < source.block_size:
            return  # parts of blocks are published too, where they can be used again
        if event.block_size > source.block_size:
            self.clear(source)
            self._resize(source, event.block_size)
        number = self._before(source, event)
        if number is None:
            return
        numbers = _numbers(number, event.tokens, event.block_size)
        known, holders, bit = source.numbers, self._holders, source.bit
        for place, (name, number) in enumerate(zip(event.hashes, numbers, strict=True)):
            if name in known:
                self._leave(known.pop(name), bit)
            if _foreign(event, place) or len(known) >= self._most:
                return
            known[name] = number
            holders[number] = holders.get(number, 0) | bit

    def _resize(self, source: Source, size: int) -> None:
        left = self._sizes.pop(source.block_size, 0) & ~source.bit
        if left:
            self._sizes[source.block_size] = left
        if size:
            self._sizes[size] = self._sizes.get(size, 0) | source.bit
        source.block_size = size

    def _before(self, source: Source, event: Stored) -> int | None:
        """Return the number of what an event's first block follows; None if it is not known."""
        if event.parent is not None:
            return source.numbers.get(event.parent)
        return _root(event.adapter, _salt(event))

    def _remove(self, source: Source, names: Sequence[BlockHash]) -> None:
        for name in names:
            number = source.numbers.pop(name, None)
            if number is not None:
                self._leave(number, source.bit)

    def _leave(self, number: int, bit: int) -> None:
        left = self._holders.get(number, 0) & ~bit
        if left:
            self._holders[number] = left
        else:
            self._holders.pop(number, None)

    # --- looking

    def runs(self, prompt: Prompt) -> Iterator[tuple[int, list[Backend]]]:
        """Yield how many tokens of a prompt's beginning are cached where, the most first.

        A server may be named several times, with its best run first; of very many that have as
        much, some are, each time others. Who has a block is taken to have those before it: engines
        let go of the end of a prompt first.
        """
        found = [self._runs(prompt.chain(size), size, bits) for size, bits in self._sizes.items()]
        for tokens, bits in merge(*found, reverse=True):
            yield tokens, self._backends(bits)

    def _runs(self, chain: Sequence[int], size: int, bits: int) -> Iterator[tuple[int, int]]:
        """Yield lengths in tokens, the longest first, and the bits of the sources that have them.

        Args:
            chain: the numbers of the prompt's blocks.
            size: tokens in each.
            bits: the sources to look at.
        """
        holders, most = self._holders, len(chain)
        while most:
            least = 0
            while least < most:  # a search by halves: prompts have thousands of blocks
                middle = (least + most) // 2
                if bits & holders.get(chain[middle], 0):
                    least = middle + 1
                else:
                    most = middle
            if not least:
                return
            have = bits & holders[chain[least - 1]]
            yield least * size, have
            bits, most = bits & ~have, least - 1

    def _backends(self, bits: int) -> list[Backend]:
        if bits.bit_count() > _MANY:
            self._turn = (self._turn + _MANY) % bits.bit_length()
            bits = bits >> self._turn << self._turn
        found: list[Backend] = []
        while bits and len(found) < _MANY:
            bit = bits & -bits
            found.append(self._sources[bit].backend)
            bits ^= bit
        return found


def _root(adapter: str, salt: str) -> int:
    return hash((adapter, salt))


def _numbers(number: int, tokens: bytes, size: int) -> Iterator[int]:
    """Yield the number of each whole block that follows what `number` stands for."""
    width = size * TOKEN_BYTES
    for end in range(width, len(tokens) + 1, width):
        number = hash((number, tokens[end - width : end]))
        yield number


def _salt(event: Stored) -> str:
    """Return the salt of a prompt's first block, if it depends on that and nothing else."""
    rest = _rest(event, 0)
    return rest[0] if len(rest) == 1 and isinstance(rest[0], str) else ""


def _foreign(event: Stored, place: int) -> bool:
    """Tell whether a block depends on more than can be known of a request: on a picture, say.

    Nothing that follows it is found then, since what it follows is not.
    """
    rest = _rest(event, place)
    if place == 0 and event.parent is None and len(rest) == 1:
        return not isinstance(rest[0], str)  # a salt, which stands in the first block only
    return bool(rest)


def _rest(event: Stored, place: int) -> tuple[object, ...]:
    """Return what a block depends on beside its tokens and the adapter, which is named first."""
    keys = event.extra[place] if event.extra else ()
    return keys[1:] if event.adapter and keys[:1] == (event.adapter,) else keys
