"""The solver: what follows, what is preferred, and what is refused."""

from __future__ import annotations

import itertools

from neuroexapt.graph.equations import Equation
from neuroexapt.graph.expressions import Arithmetic, Attribute, Expression, Extent
from neuroexapt.graph.space import Space, concatenation, pin, product
from neuroexapt.graph.ties import Ties


def attribute(name: str, value: int) -> Attribute:
    return Attribute("block", name, (), value)


def ties(*pairs: tuple[Expression, Expression], copied: tuple[Space, ...] = ()) -> Ties:
    return Ties([Equation(written, needed, "file.py:1") for written, needed in pairs], lambda leaf: leaf in copied)


HEADS = attribute("num_heads", 3)


def test_an_attribute_changes_before_an_axis() -> None:
    width, other = Space(12), Space(4)
    code = ties((Arithmetic("*", HEADS, Extent(other)), Extent(width)))
    assert dict(code.closure({width: 24}).values) == {width: 24, HEADS: 6}


def test_divisions_stay_without_a_remainder() -> None:
    width, heads, head_dim = Space(12), Space(3), Space(4)
    code = ties((HEADS, Extent(heads)), (Arithmetic("//", Extent(width), HEADS), Extent(head_dim)))
    assert dict(code.closure({width: 24}).values) == {width: 24, HEADS: 6, heads: 6}


def test_several_parts_of_a_sum_take_fair_shares() -> None:
    first, second, other = Space(2), Space(2), Space(4)
    code = ties((Extent(concatenation([first, second])), Extent(other)))
    assert dict(code.closure({other: 8}).values) == {other: 8, first: 4, second: 4}


def test_units_that_can_only_be_copied_grow_by_factors() -> None:
    heads, head_dim, width = Space(3), Space(4), Space(12)
    pair = (Extent(width), Extent(product([heads, head_dim])))
    assert dict(ties(pair).closure({heads: 5}).values) == {heads: 5, width: 20}
    refused = ties(pair, copied=(width,)).closure({heads: 5})
    assert refused.is_hopeless
    assert refused.broken == "a dimension of 12 at file.py:1 would no longer be a dimension of 12"
    assert dict(ties(pair, copied=(width,)).closure({heads: 6}).values) == {heads: 6, width: 24}


def test_an_axis_that_cannot_change_is_named_with_its_reason() -> None:
    width, other = Space(6), Space(6)
    pin(other, "an axis of the model's input")
    code = ties((Extent(width), Extent(other)))
    assert code.closure({width: 8}).broken.endswith(", where an axis cannot change: an axis of the model's input")


def test_a_number_is_doubtful_because_its_origin_may_be_lost() -> None:
    width = Space(6)
    closure = ties((6, Extent(width))).closure({width: 8})
    assert (closure.broken, closure.is_doubtful) == ("a size is written as 6 at file.py:1", True)
    assert dict(closure.values) == {width: 8}


def test_pruning_makes_others_smaller() -> None:
    width, heads = Space(12), Space(3)
    code = ties((HEADS, Extent(heads)), (Arithmetic("*", HEADS, 4), Extent(width)))
    assert dict(code.closure({heads: 2}).values) == {heads: 2, HEADS: 2, width: 8}


def test_the_same_question_has_the_same_answer() -> None:
    spaces = [Space(4) for _ in range(6)]
    code = ties(*((Extent(a), Extent(b)) for a, b in itertools.pairwise(spaces)))
    answers = [list(code.closure({spaces[3]: 7}).values.items()) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert set(code.closure({spaces[3]: 7}).values) == set(spaces)


def test_a_question_without_an_answer_ends() -> None:
    spaces = [Space(4) for _ in range(12)]
    pairs = [
        (Arithmetic("+", Extent(a), Extent(b)), Extent(concatenation([b, c])))
        for a, b, c in zip(spaces, spaces[1:], spaces[2:], strict=False)
    ]
    fixed = Space(8)
    pin(fixed, "fixed")
    code = ties(*pairs, (Arithmetic("+", Extent(spaces[0]), Extent(spaces[-1])), Extent(fixed)))
    assert code.closure({spaces[5]: 5}).is_hopeless
