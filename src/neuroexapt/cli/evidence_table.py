"""Evidence as tables that fit eighty columns and use more where there are: values, needs, edges, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from neuroexapt.analysis import BottleneckReport, Evidence, LayerEvidence, ModelEvidence
from neuroexapt.analysis.needs import KEPT, NEEDS, RAISED, LayerNeeds
from neuroexapt.morphogenesis.answers import ANSWERS
from neuroexapt.report.quantities import in_bytes, in_count, in_flops, in_number_of

MARK = "▲"  # of a raised need, for eyes and terminals without colour
STYLES = {"wider": "blue", "deeper": "yellow", "path": "magenta", "attention": "green", "less": "bright_black"}
WIDE = 140  # columns from which all values stand in one line, and needs have bars
SHORT = {"wider": "wide", "deeper": "deep", "attention": "attn"}  # heads of a narrow table
MAX_EDGES = 6
_BARS = " ▏▎▍▌▋▊▉█"
_BAR_CELLS = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One value in the table, and in which table it stands."""

    name: str
    head: str
    form: Literal["share", "number", "magnitude"]
    meaning: str
    where: Literal["both", "wide", "narrow"] = "both"


COLUMNS = (
    Column("effective_rank_fraction", "rank", "share", "of the directions that its units could span, those they do"),
    Column("expressivity_gap", "gap", "share", "of the gradient at its outputs, what its weights cannot give"),
    Column(
        "label_information_fraction", "label", "share", "of the label, what a linear probe reads off it", where="narrow"
    ),
    Column("label_information", "label\nnats", "number", "what a linear probe reads of the label", where="wide"),
    Column("predictability", "predict-\nable", "share", "of a unit, what the others tell", where="wide"),
    Column("dead_fraction", "dead", "share", "of its units, those always 0", where="wide"),
    Column("context_fraction", "context", "share", "of the gap, what the whole sample tells", where="wide"),
    Column(
        "gradient_agreement", "agree-\nment", "share", "of the squared gradient, what all samples share", where="wide"
    ),
    Column("fisher_sensitivity", "fisher", "magnitude", "rise of the loss without one unit", where="wide"),
)


def totals_of(evidence: ModelEvidence, name: str) -> Text:
    """Returns what was read, and what it cost."""
    return Text(
        f"{name}: {in_number_of(len(evidence.layers), 'layer')} read from {in_count(evidence.num_samples)} training "
        f"samples with {in_bytes(evidence.num_bytes)} and {in_flops(evidence.flops)}"
    )


def layer_table(evidence: ModelEvidence, report: BottleneckReport, width: int) -> Table:
    """Returns a table with a row for each layer, in the order in which they run.

    Args:
        evidence: From ``measure_evidence``.
        report: Its needs.
        width: Columns of the terminal.
    """
    is_wide, columns = width >= WIDE, _columns(evidence, width)
    table = Table(
        title="Layers as they run: values ± half of the 95 % interval, and needs in [0, 1]",
        title_justify="left",
        title_style="bold",
        caption=f"{MARK} stands out: from {RAISED} on, until below {KEPT}; 0.5 is the middle of this model",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", overflow="fold")
    for head in ("units", *(c.head for c in columns)):
        table.add_column(head, justify="right", no_wrap=True)
    for name in NEEDS:
        table.add_column(name if is_wide else SHORT.get(name, name), no_wrap=True)
    for layer, needs in zip(evidence.layers, report.layers, strict=True):
        table.add_row(
            Text(layer.path),
            str(layer.width),
            *(_value(layer, column) for column in columns),
            *(_need(needs, name, is_wide) for name in NEEDS),
        )
    return table


def legend(evidence: ModelEvidence, width: int) -> str:
    """Returns what the columns of ``layer_table`` are, in one line."""
    names = ((c.head.replace("-\n", "").replace("\n", " in "), c.meaning) for c in _columns(evidence, width))
    return "; ".join(f"{name}: {meaning}" for name, meaning in names)


def _columns(evidence: ModelEvidence, width: int) -> Sequence[Column]:
    left_out = "narrow" if width >= WIDE else "wide"
    return [c for c in COLUMNS if c.where != left_out and any(c.name in la.values for la in evidence.layers)]


def edge_lines(report: BottleneckReport) -> Sequence[str]:
    """Returns the edges that lose most of what can be read about the label."""
    if not report.edges:
        return []
    edges = sorted((e for e in report.edges if e.value.low > 0), key=lambda e: -e.value.value)
    if not edges:
        return ["no edge loses information about the label, as far as intervals tell"]
    return [
        "information about the label that is lost between layers, in nats:",
        *(
            f"  {edge.value.value:7.2g} [{edge.value.low:.2g}, {edge.value.high:.2g}]  {edge.source} → {edge.target}"
            for edge in edges[:MAX_EDGES]
        ),
        *([f"  and {in_number_of(len(edges) - MAX_EDGES, 'edge')} more"] if len(edges) > MAX_EDGES else []),
    ]


def what_to_do(report: BottleneckReport) -> Sequence[str]:
    """Returns the mutation kinds that answer the needs that were raised."""
    raised = {name for _, name, _ in report.strongest()}
    if not raised:
        return []
    return [
        "what could be done about it:",
        *(f"  {name}: {', '.join(k.__name__ for k in ANSWERS[name])}" for name in NEEDS if name in raised),
    ]


def _value(layer: LayerEvidence, column: Column) -> Text:
    evidence = layer.values.get(column.name)
    return Text("-" if evidence is None else _short(evidence, column.form))


def _short(evidence: Evidence, form: str) -> str:
    half = (evidence.high - evidence.low) / 2
    if form == "share":
        if not half:
            return f"{100 * evidence.value:.0f}%"
        return f"{100 * evidence.value:.0f}±{100 * half:.0f}%"
    return f"{evidence.value:.2f}±{half:.2f}" if form == "number" else f"{evidence.value:.1e}±{half:.0e}"


def _need(needs: LayerNeeds, name: str, is_wide: bool) -> Text:
    need = needs.needs.get(name)
    if need is None:
        return Text("-", style="bright_black")
    mark = MARK if need.is_raised else " "
    short = f"{need.score:.2f}".removeprefix("0")[:3]  # .84 or 1.0
    text = f"{need.score:.2f}{mark}{_bar(need.score)}" if is_wide else f"{short}{mark}"
    return Text(text, style=f"bold {STYLES[name]}" if need.is_raised else "")


def _bar(score: float) -> str:
    eighths = round(score * _BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BARS[rest] if rest else "")).ljust(_BAR_CELLS)
