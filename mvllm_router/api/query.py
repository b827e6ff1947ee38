"""What a route of the router's own may be asked for in the query of its address."""

from __future__ import annotations

from urllib.parse import parse_qs

from mvllm_router.errors import BadRequest

# Names that are looked at before the rest is taken for a mistake.
_MOST_FIELDS = 32


class Query:
    """The query of a request; of a name that is given twice, the last one counts."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            BadRequest: there is too much of it.
        """
        try:
            found = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise BadRequest("The query of the address is too long.") from None
        self._values = {name: values[-1] for name, values in found.items()}

    def number(self, name: str, default: int, *, most: int | None = None) -> int:
        """Return the whole number that `name` is given, 0 or more, at most `most`.

        Raises:
            BadRequest: it is none.
        """
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) <= 15):
            raise BadRequest(f"`{name}` in the query has to be a whole number.", param=name)
        number = int(text)
        return number if most is None else min(number, most)
