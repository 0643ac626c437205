"""The algebra of index spaces."""

from __future__ import annotations

import pytest

from neuroexapt.graph.space import (
    Reader,
    Space,
    concatenation,
    cut,
    factors,
    leaves,
    mark,
    pin,
    product,
    resolve,
    segments,
    split_major,
    unify,
)


def pinned(space: Space) -> str | None:
    return resolve(space).pin_reason


def test_a_product_flattens_and_drops_ones() -> None:
    a, b = Space(2), Space(3)
    assert factors([product([a, Space(1), product([b])])]) == [a, b]
    assert product([a, Space(1)]) is a
    assert product([Space(1)]).size == 1


def test_a_concatenation_of_one_is_itself_and_sums_nest() -> None:
    a, b, c = Space(2), Space(3), Space(4)
    assert concatenation([a]) is a
    whole = concatenation([concatenation([a, b]), c])
    assert whole.size == 9
    assert segments(whole) == [a, b, c] == leaves(whole)


def test_unified_leaves_are_one_space_for_everybody() -> None:
    a, b, c = Space(4), Space(4), Space(4)
    unify(a, b)
    unify(b, c)
    assert resolve(a) is resolve(b) is resolve(c)
    assert pinned(a) is None


def test_spaces_of_other_sizes_are_pinned_and_never_merged() -> None:
    a, b = Space(4), Space(5)
    unify(a, b)
    assert resolve(a) is not resolve(b)
    assert pinned(a) == pinned(b) == "conflict: sizes 4 and 5 meet"


def test_a_leaf_that_meets_a_product_becomes_that_product() -> None:
    leaf, a, b = Space(6), Space(2), Space(3)
    unify(leaf, product([a, b]))
    assert [resolve(x) for x in leaves(leaf)] == [a, b]


def test_a_leaf_cannot_become_a_space_that_contains_it() -> None:
    leaf = Space(4)
    whole = concatenation([leaf, Space(3)])
    outer = Space(7)
    unify(outer, whole)
    holder = Space(4)
    unify(holder, product([Space(2), Space(2)]))
    unify(leaf, holder)
    assert [s.size for s in leaves(outer)] == [2, 2, 3]


def test_products_refine_each_other_to_a_common_form() -> None:
    a, b = product([Space(4), Space(3)]), product([Space(2), Space(6)])
    unify(a, b)
    assert [s.size for s in leaves(a)] == [2, 2, 3] == [s.size for s in leaves(b)]
    assert leaves(a) == leaves(b)


def test_products_without_a_common_form_are_pinned() -> None:
    a, b = product([Space(2), Space(3)]), product([Space(3), Space(2)])
    unify(a, b)
    assert all((pinned(s) or "").startswith("conflict") for s in [*leaves(a), *leaves(b)])


def test_sums_refine_each_other_at_all_boundaries() -> None:
    a, b = concatenation([Space(2), Space(5)]), concatenation([Space(4), Space(3)])
    unify(a, b)
    assert [s.size for s in leaves(a)] == [2, 2, 3]
    assert leaves(a) == leaves(b)


def test_a_product_that_meets_equal_segments_ties_them_and_pins_their_number() -> None:
    count, unit = Space(3), Space(4)
    parts = [Space(4) for _ in range(3)]
    unify(product([count, unit]), concatenation(parts))
    assert len({resolve(p) for p in [*parts, unit]}) == 1
    assert pinned(count) == "number of equal segments"
    assert pinned(unit) is None


def test_a_product_that_meets_unequal_segments_is_pinned() -> None:
    whole, total = product([Space(2), Space(3)]), concatenation([Space(2), Space(4)])
    unify(whole, total)
    assert all(pinned(s) for s in [*leaves(whole), *leaves(total)])


@pytest.mark.parametrize(("offset", "sizes"), [(0, (None, 6)), (6, (6, None)), (9, (6, None)), (2, (2, 4))])
def test_cut_divides_a_leaf_and_leaves_an_empty_side_out(offset: int, sizes: tuple[int | None, int | None]) -> None:
    leaf = Space(6)
    assert tuple(s and s.size for s in cut(leaf, offset)) == sizes


def test_cut_of_a_sum_falls_between_or_inside_segments() -> None:
    whole = concatenation([Space(2), Space(5)])
    left, right = cut(whole, 4)
    assert left is not None
    assert right is not None
    assert [s.size for s in leaves(left)] == [2, 2]
    assert [s.size for s in leaves(right)] == [3]
    assert [s.size for s in leaves(whole)] == [2, 2, 3]


def test_cut_of_a_product_at_a_multiple_refines_the_major_factor() -> None:
    major, minor = Space(4), Space(3)
    left, right = cut(product([major, minor]), 6)
    assert major.form == "sum"
    assert left is not None
    assert right is not None
    assert factors([left])[1] is factors([right])[1] is minor


def test_cut_inside_a_block_of_a_product_pins_everything() -> None:
    whole = product([Space(4), Space(3)])
    left, right = cut(whole, 4)
    assert [pinned(s) for s in [*leaves(whole), left, right] if s] == ["cut at 4, inside a block of 3"] * 4


def test_split_major_refines_a_factor_and_refuses_a_boundary_that_does_not_divide() -> None:
    a, b = Space(4), Space(6)
    head, rest = split_major([a, b], 8) or ([], [])
    assert [s.size for s in head] == [4, 2]
    assert [s.size for s in rest] == [3]
    assert split_major([Space(4)], 3) is None
    assert split_major([concatenation([Space(2), Space(4)])], 2) is None


def test_split_major_of_equal_segments_ties_them() -> None:
    a, b = Space(4), Space(4)
    head, rest = split_major([concatenation([a, b])], 2) or ([], [])
    assert pinned(head[0]) == "number of equal segments"
    assert resolve(a) is resolve(b) is rest[0]


def test_readers_pass_through_refinement_and_linking_and_pins_through_linking() -> None:
    leaf, reader = Space(12), Reader("aten.mean", "pool")
    mark(leaf, reader)
    split_major([leaf], 3)
    left, _ = cut(leaf.parts[1], 2)
    assert left is not None
    assert all(inner.readers == {reader} for inner in leaves(leaf))
    other = product([Space(3), Space(4)])
    unify(leaf, other)
    assert all(s.readers == {reader} for s in leaves(other))
    unify(other, Space(12, "written in the code"))
    assert all(pinned(s) == "written in the code" for s in leaves(leaf))


def test_what_is_pinned_is_divided_anew_by_whoever_looks_at_it() -> None:
    leaf = Space(12, "written in the code")
    for size in (3, 4):
        head, rest = split_major([leaf], size) or ([], [])
        assert [s.size for s in [*head, *rest]] == [size, 12 // size]
        assert all(pinned(s) == "written in the code" for s in [*head, *rest])
    assert [s and pinned(s) for s in cut(leaf, 5)] == ["written in the code"] * 2
    assert leaf.form == "leaf"


def test_a_sum_whose_segments_share_a_factor_is_a_product() -> None:
    a, b = product([Space(2), Space(5)]), Space(15)
    head, rest = split_major([concatenation([a, b])], 5) or ([], [])
    assert [s.size for s in leaves(head[0])] == [2, 3]
    assert leaves(a)[1] is leaves(b)[1] is rest[0]
    assert all(pinned(s) is None for s in leaves(concatenation([a, b])))


def test_segments_that_repeat_in_pairs_stay_apart() -> None:
    a, b, c, d = (Space(size) for size in (4, 2, 4, 2))
    head, rest = split_major([concatenation([a, b, c, d])], 2) or ([], [])
    assert pinned(head[0]) == "number of equal segments"
    assert leaves(rest[0]) == [resolve(a), resolve(b)] == [resolve(c), resolve(d)]
    assert resolve(a) is not resolve(b)


def test_factors_that_interleave_are_pinned_up_to_the_next_common_boundary() -> None:
    a, b = product([Space(2), Space(3), Space(5)]), product([Space(3), Space(2), Space(5)])
    unify(a, b)
    assert [bool(pinned(s)) for s in leaves(a)] == [True, True, False]
    assert leaves(a)[2] is leaves(b)[2]


def test_a_space_that_meets_itself_at_another_offset_is_pinned() -> None:
    leaf = Space(300)
    _, behind = cut(leaf, 1)
    before, _ = cut(leaf, 299)
    assert behind is not None
    assert before is not None
    unify(behind, before)
    assert all(pinned(s) or s.size == 1 for s in leaves(leaf))


def test_pinning_a_whole_pins_its_parts_and_the_first_reason_stays() -> None:
    a, b = Space(2, "first"), Space(3)
    whole = concatenation([a, b])
    pin(whole, "second")
    assert (pinned(a), pinned(b), pinned(whole)) == ("first", "second", "second")


def test_a_space_prints_its_structure() -> None:
    assert repr(concatenation([product([Space(2, "p"), Space(3)]), Space(4)])) == "((2!x3)+4)"
