"""The table of the router's own routes: what is found at a path, and by which method."""

from __future__ import annotations

import pytest

from mvllm_router.api.own import Asked, Own, OwnRoutes
from mvllm_router.errors import MethodNotAllowed
from mvllm_router.front.response import Response


async def read(asked: Asked) -> Response:
    raise AssertionError("nobody asks")


async def write(asked: Asked) -> Response:
    raise AssertionError("nobody asks")


PLAIN, NAMED = Own(read), Own(read, {"PATCH": write})
ROUTES = OwnRoutes({"/things": PLAIN, "/things/{name}": NAMED, "/do": Own(writes={"POST": write})})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/things", (PLAIN, "")),
        ("/things/a", (NAMED, "a")),
        ("/things/a/b", (NAMED, "a/b")),
        ("/things/a%2Fb%20c", (NAMED, "a/b c")),
        ("/things/a%252F", (NAMED, "a%2F")),
        ("/things/{name}", (NAMED, "{name}")),
        ("/things/%ff", (NAMED, "\N{REPLACEMENT CHARACTER}")),
        ("/things/", None),
        ("/thing", None),
        ("/thingsa", None),
        ("//things", None),
        ("", None),
    ],
)
def test_a_path_leads_to_its_route_and_the_name_in_it(
    path: str, wanted: tuple[Own, str] | None
) -> None:
    assert ROUTES.find(path) == wanted


def test_reading_and_changing_have_handlers_of_their_own() -> None:
    assert NAMED.handler("GET", "/things/a") is read
    assert NAMED.handler("HEAD", "/things/a") is read
    assert NAMED.handler("PATCH", "/things/a") is write


@pytest.mark.parametrize(
    ("route", "method", "allow"),
    [
        (PLAIN, "POST", "GET, HEAD"),
        (NAMED, "POST", "GET, HEAD, PATCH"),
        (NAMED, "patch", "GET, HEAD, PATCH"),
        (Own(writes={"POST": write}), "GET", "POST"),
        (Own(writes={"POST": write}), "HEAD", "POST"),
    ],
)
def test_other_methods_are_refused_with_those_that_are_taken(
    route: Own, method: str, allow: str
) -> None:
    with pytest.raises(MethodNotAllowed, match=f"^/x takes {allow}, not {method}.$") as caught:
        route.handler(method, "/x")
    assert caught.value.allow == allow
