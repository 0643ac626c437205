"""Bans: they double, decay, are forgotten and stay few."""

from __future__ import annotations

import json

import pytest

from neuroexapt.morphogenesis.bans import MAX_PLACES, Ban, Bans


def test_a_failure_bans_its_place_and_no_other_until_the_ban_ends() -> None:
    bans = Bans()
    bans.fail("Widen@a", 2.5, 3.0)
    assert bans.is_banned("Widen@a", 2.5)
    assert bans.is_banned("Widen@a", 5.49)
    assert not bans.is_banned("Widen@a", 5.5)
    assert not bans.is_banned("Widen@b", 2.5)


def test_a_place_that_fails_again_at_once_is_banned_twice_as_long() -> None:
    bans, position, lengths = Bans(), 0.0, []
    for _ in range(4):
        bans.fail("a", position, 1.0)
        lengths.append(bans.places["a"].until - position)
        position = bans.places["a"].until
    assert lengths == [1.0, 2.0, 4.0, 8.0]


def test_failures_halve_with_every_span_of_freedom() -> None:
    bans = Bans()
    bans.fail("a", 0.0, 2.0)
    bans.fail("a", 2.0, 2.0)  # until 6, two failures
    bans.fail("a", 8.0, 2.0)  # one of them is left
    assert bans.places["a"].failures == pytest.approx(2.0)
    assert bans.places["a"].until == pytest.approx(12.0)


def test_a_success_forgets_and_so_does_time() -> None:
    bans = Bans()
    bans.fail("a", 0.0, 1.0)
    bans.fail("b", 0.0, 1.0)
    bans.succeed("a")
    bans.succeed("never seen")
    assert not bans.is_banned("a", 0.0)
    bans.fail("c", 20.0, 1.0)
    assert set(bans.places) == {"c"}


def test_no_ban_is_asked_for_and_none_is_kept() -> None:
    bans = Bans()
    bans.fail("a", 0.0, 0.0)
    assert bans == Bans()


def test_however_many_places_fail_only_so_many_are_kept_and_those_longest_banned() -> None:
    bans = Bans({str(i): ban_from(i) for i in range(MAX_PLACES)})
    bans.fail("new", 0.0, 1e4)
    assert len(bans.places) == MAX_PLACES
    assert "new" in bans.places
    assert "0" not in bans.places


def test_a_place_that_fails_for_ever_is_banned_for_good_without_overflow() -> None:
    bans = Bans()
    for _ in range(2000):
        bans.fail("a", 0.0, 1.0)
    assert bans.is_banned("a", 1e9)


def ban_from(order: int) -> Ban:
    bans = Bans()
    bans.fail("x", float(order), 1.0)
    return bans.places["x"]


def test_bans_go_to_json_and_back() -> None:
    bans = Bans()
    bans.fail("a", 0.3, 1.7)
    bans.fail("b", 4.0, 1.7)
    assert Bans.from_json(json.loads(json.dumps(bans.to_json()))) == bans
