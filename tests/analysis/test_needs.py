"""From evidence to needs: percentiles that respect intervals, nulls, hysteresis, and what is absent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from analysis.made_up_evidence import chain, edge, reading
from neuroexapt.analysis import BottleneckReport, ModelEvidence, bottlenecks
from neuroexapt.analysis.needs.percentiles import percentiles
from neuroexapt.analysis.needs.quantities import quantities
from neuroexapt.analysis.needs.table import NEEDS
from neuroexapt.errors import InputError
from neuroexapt.morphogenesis.answers import ANSWERS


def ranks(*values: float) -> ModelEvidence:
    """Layers that differ in their effective rank alone, and an output layer."""
    return chain(*({"effective_rank_fraction": reading(value)} for value in values), {})


def test_exact_values_get_their_mid_rank_and_ties_share_it() -> None:
    assert percentiles([reading(v) for v in (3.0, 1.0, 2.0, 2.0)]) == pytest.approx([1.0, 0.0, 0.5, 0.5])
    assert percentiles([reading(7.0)]) == [0.5]
    assert percentiles([]) == []


def test_a_percentile_does_not_depend_on_the_unit() -> None:
    readings = [reading(v, 0.1 * v) for v in (0.2, 0.5, 0.45)]
    scaled = [reading(1000 * r.value, 1000 * (r.high - r.value)) for r in readings]
    assert percentiles(readings) == pytest.approx(percentiles(scaled))


def test_layers_that_intervals_do_not_tell_apart_stand_close_to_the_middle() -> None:
    sharp = percentiles([reading(0.4, 0.001), reading(0.6, 0.001)])
    blurred = percentiles([reading(0.4, 2.0), reading(0.6, 2.0)])
    assert sharp == pytest.approx([0.0, 1.0])
    assert 0.4 < blurred[0] < 0.5 < blurred[1] < 0.6


def test_what_is_not_told_from_its_null_is_neutral_and_counts_as_the_null_for_others() -> None:
    found = percentiles([reading(0.3, 0.1), reading(0.9, 1.0), reading(0.6, 0.1)], null=0.0)
    assert found == pytest.approx([0.5, 0.5, 1.0], abs=1e-3)
    report = bottlenecks(chain({"context_fraction": reading(0.1, 0.2)}, {"context_fraction": reading(0.1, 0.05)}))
    assert report.layers[0].needs["attention"].score == 0.5
    assert report.layers[0].needs["attention"].reasons == ("context fraction 0.1 [-0.1, 0.3]: not told from 0",)


def test_a_need_is_the_mean_of_its_signals_and_one_without_signals_is_absent() -> None:
    evidence = chain(
        *({"predictability": reading(p), "fisher_sensitivity": reading(f)} for p, f in ((0.9, 1), (0.5, 2), (0.1, 3))),
        {},
    )
    found = bottlenecks(evidence)
    assert [round(layer.needs["less"].score, 3) for layer in found.layers[:3]] == [1.0, 0.5, 0.0]
    assert [round(layer.needs["wider"].score, 3) for layer in found.layers[:3]] == [0.0, 0.5, 1.0]
    assert found.layers[0].needs.keys() == {"wider", "less"}
    assert found.layers[0].strongest == "less"
    assert found.layers[3].needs == {}
    assert found.layers[3].strongest == ""


def test_the_units_of_the_output_layer_are_not_judged_but_its_depth_is() -> None:
    values = {"effective_rank_fraction": reading(0.5), "expressivity_gap": reading(0.5, 0.1)}
    assert bottlenecks(chain(values, values)).layers[1].needs.keys() == {"deeper"}


def test_a_supporting_signal_alone_makes_no_need() -> None:
    evidence = chain(*({"gradient_agreement": reading(v, 0.01)} for v in (0.1, 0.2, 0.9)))
    assert all(not layer.needs for layer in bottlenecks(evidence).layers)


def test_what_a_layer_lacks_and_others_have_is_neutral_there() -> None:
    told = {"fisher_sensitivity": reading(3.0)}
    evidence = chain(
        told, *({"predictability": reading(p), "fisher_sensitivity": reading(1.0)} for p in (0.5, 0.1)), {}
    )
    need = bottlenecks(evidence).layers[0].needs["wider"]
    assert need.score == 0.75
    assert need.reasons[1] == "predictability: not measured here"


def test_one_layer_has_nothing_to_compare_it_with_and_says_so() -> None:
    report = bottlenecks(chain({"effective_rank_fraction": reading(0.9), "context_fraction": reading(0.5, 0.1)}))
    assert [need.score for need in report.layers[0].needs.values()] == [0.5] * 3
    assert "no other layer to compare it with" in report.layers[0].needs["wider"].reasons[0]
    assert report.notes == ("one layer: there is no other to compare it with",)
    assert report.summary() == "no layer stands out from the others"


def test_a_raised_need_is_kept_until_it_falls_well_below_and_is_not_raised_by_less() -> None:
    high, middle, low = ranks(0.9, 0.1, 0.2, 0.3), ranks(0.5, 0.6, 0.2, 0.3), ranks(0.5, 0.6, 0.7, 0.3)
    scores = [bottlenecks(e).layer("layer.0").needs["wider"].score for e in (high, middle, low)]
    assert scores == pytest.approx([1, 2 / 3, 1 / 3])
    first = bottlenecks(high)
    assert first.layer("layer.0").needs["wider"].is_raised
    assert not bottlenecks(middle).layer("layer.0").needs["wider"].is_raised
    second = bottlenecks(middle, first)
    assert second.layer("layer.0").needs["wider"].is_raised
    assert not second.layer("layer.3").needs["wider"].is_raised
    assert bottlenecks(middle, second).layer("layer.0").needs["wider"].is_raised
    third = bottlenecks(low, second)
    assert not third.layer("layer.0").needs["wider"].is_raised
    assert not bottlenecks(middle, third).layer("layer.0").needs["wider"].is_raised


def test_information_that_only_later_layers_show_is_unread_and_edges_count_at_both_ends() -> None:
    evidence = chain(*({"label_information": reading(v, 0.1)} for v in (0.5, 1.5, 1.0)))
    evidence = replace(evidence, edges=(edge(0, 1, reading(-0.2, 0.1)), edge(1, 2, reading(0.5, 0.1))))
    found = quantities(evidence)
    assert found["layer.0"]["unread_information"].value == pytest.approx(1.0)
    assert found["layer.0"]["unread_information"].low == pytest.approx(1.0 - 0.1 * 2**0.5)
    assert found["layer.1"]["unread_information"].value == pytest.approx(-0.5)
    assert "unread_information" not in found["layer.2"]
    assert [found[f"layer.{i}"]["information_lost"].value for i in range(3)] == [-0.2, 0.5, 0.5]
    told = bottlenecks(evidence).layers[0].needs["path"].reasons[0]
    assert told == "information lost -0.2 [-0.3, -0.1], below all of 2 others"


def test_dead_and_constant_units_are_idle_together() -> None:
    values = {"dead_fraction": reading(0.25), "constant_fraction": reading(0.125)}
    assert quantities(chain(values, {}))["layer.0"]["idle_fraction"].value == 0.375


def test_the_summary_tells_the_strongest_first_and_the_edge_that_loses_most() -> None:
    evidence = ranks(*(0.1 * i for i in range(30)))
    evidence = replace(evidence, edges=(edge(0, 1, reading(0.3, 0.1)), edge(1, 2, reading(0.4, 0.5))))
    lines = bottlenecks(evidence).summary().splitlines()
    reason = "its units span fewer directions: effective rank fraction 0 [0, 0], below all of 29 others"
    assert lines[0] == f"layer.0: less (1.00): {reason}"
    assert lines[1].startswith("layer.29: wider (1.00): its units are used more fully: effective rank fraction 2.9 ")
    assert lines[-2:] == ["and 11 more", "layer.0 → layer.1 loses most: 0.3 nats about the label [0.2, 0.4]"]


def test_a_report_goes_to_json_and_back() -> None:
    evidence = replace(ranks(0.9, 0.1, 0.2), edges=(edge(0, 1, reading(0.3, 0.1)),))
    report = bottlenecks(evidence)
    assert BottleneckReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert ModelEvidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence
    with pytest.raises(InputError, match=r"found no needs of this layer, needed one of layer\.0"):
        report.layer("nothing")


def test_every_need_has_mutation_kinds_that_answer_it() -> None:
    assert ANSWERS.keys() == NEEDS.keys()
