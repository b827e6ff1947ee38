"""What is changed while the router runs lies over the file, and stays there as the file changes."""

from __future__ import annotations

from dataclasses import replace

from mvllm_router.config import CHANGEABLE, Config, Overlay, ServerSpec, Settings

A = ServerSpec(url="http://a:1", name="a")
B = ServerSpec(url="http://b:1", name="b", weight=2.0)
NEW = ServerSpec(url="http://new:1", name="new")


def config(*servers: ServerSpec) -> Config:
    return Config(servers, Settings())


def after(overlay: Overlay, *servers: ServerSpec) -> tuple[ServerSpec, ...]:
    base = config(*servers)
    return overlay.pruned(base).over(base).servers


def test_without_changes_it_is_the_file() -> None:
    assert after(Overlay(), A, B) == (A, B)
    assert Overlay().count == 0


def test_what_may_be_changed_are_fields_of_a_server() -> None:
    assert replace(A, **dict.fromkeys(CHANGEABLE, 1)) != A


def test_servers_are_added_changed_and_removed() -> None:
    overlay = Overlay().with_server(NEW).with_values("b", {"weight": 3.0}).without_server("a")
    assert after(overlay, A, B) == (replace(B, weight=3.0), NEW)
    assert overlay.pruned(config(A, B)).count == 3


def test_an_added_server_that_is_changed_or_removed_is_one_change_or_none() -> None:
    overlay = Overlay().with_server(NEW).with_values("new", {"weight": 3.0})
    assert after(overlay, A) == (A, replace(NEW, weight=3.0))
    assert overlay.count == 1
    assert overlay.without_server("new").pruned(config(A)) == Overlay()


def test_a_removed_server_stays_away_until_the_file_has_done_without_it() -> None:
    overlay = Overlay().without_server("a")
    assert after(overlay, replace(A, weight=5.0), B) == (B,)
    forgotten = overlay.pruned(config(B))
    assert forgotten == Overlay()
    assert after(forgotten, A, B) == (A, B)


def test_a_changed_server_keeps_the_change_while_the_file_changes_other_things() -> None:
    overlay = Overlay().with_values("b", {"weight": 3.0})
    assert after(overlay, replace(B, tags=("x",))) == (replace(B, tags=("x",), weight=3.0),)


def test_what_the_file_says_itself_is_no_change_any_more() -> None:
    overlay = Overlay().with_values("b", {"weight": 3.0, "max_concurrent_requests": 4})
    left = overlay.pruned(config(replace(B, weight=3.0)))
    assert left.changed == {"b": {"max_concurrent_requests": 4}}
    assert Overlay().with_values("b", {"weight": 2.0}).pruned(config(B)) == Overlay()


def test_the_files_entry_counts_where_it_names_an_added_server_itself() -> None:
    overlay = Overlay().with_server(NEW)
    assert after(overlay, A, replace(NEW, weight=9.0)) == (A, replace(NEW, weight=9.0))
    assert after(overlay, replace(A, url=NEW.url)) == (replace(A, url=NEW.url),)


def test_another_server_may_take_the_name_of_a_removed_one() -> None:
    other = replace(NEW, name="a")
    overlay = Overlay().without_server("a").with_server(other)
    assert after(overlay, A, B) == (B, other)
    assert overlay.count == 1


def test_a_server_that_was_removed_and_added_as_it_was_is_no_change() -> None:
    overlay = Overlay().without_server("a").with_server(A)
    assert overlay.pruned(config(A, B)) == Overlay()
    assert after(overlay, A, B) == (A, B)
