"""The difference of two architectures as a table: a row for each layer, what was above what is."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.table import Table
from rich.text import Text

from neuroexapt.graph import Difference, Layer, LayerChange, Status, folded
from neuroexapt.report.quantities import in_change, in_count, in_flops, in_relative_change

STYLES: dict[Status, str] = {
    "unchanged": "bright_black",
    "wider": "blue",
    "narrower": "yellow",
    "changed": "magenta",
    "new": "green",
    "removed": "red",
}


def difference_table(found: Difference, *, is_wide: bool) -> Table:
    """Returns the layers; what changed has its old value above, or beside where the table is wide.

    Args:
        found: From ``difference``.
        is_wide: Whether there is room for two values in one line.
    """
    table = Table(
        title="Layers in the order of execution",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("layer", "kind", "output", "parameters", "FLOPs", "what changed"):
        table.add_column(name, overflow="fold", justify="right" if name in ("parameters", "FLOPs") else "left")
    for row in folded(found.layers):
        if isinstance(row, int):
            table.add_row(Text(f"… {row} more, unchanged"), style=STYLES["unchanged"])
        else:
            _add(table, row, is_wide)
    return table


def totals_of(found: Difference, first: str, second: str) -> Text:
    """Returns sizes and costs of both, and how many layers are what."""
    (p, q), (f, g) = found.num_parameters, found.flops
    counts = ", ".join(f"{found.count(status)} {status}" for status in STYLES if found.count(status))
    return Text(
        f"A: {first}\nB: {second}\n"
        f"parameters: {in_count(p)} → {in_count(q)} ({in_change(q - p)}, {in_relative_change(q - p, p)})\n"
        f"FLOPs per sample: {in_flops(f)} → {in_flops(g)} ({in_relative_change(g - f, f)})\n"
        f"layers: {counts or 'none'}"
    )


def _add(table: Table, row: LayerChange, is_wide: bool) -> None:
    def pair(read: Callable[[Layer], str]) -> Text:
        texts = [read(side) for side in (row.before, row.after) if side is not None]
        if len(texts) == 2 and texts[0] == texts[1]:
            texts.pop()
        return Text((" → " if is_wide else "\n→ ").join(text or "0" for text in texts) if any(texts) else "")

    table.add_row(
        Text(row.layer.path or "(the model itself)"),
        pair(lambda side: side.kind),
        pair(_shape),
        pair(lambda side: in_count(side.num_parameters) if side.num_parameters else ""),
        pair(lambda side: in_flops(side.flops).removesuffix("FLOP").strip() if side.flops else ""),
        Text(row.status if row.status in ("new", "removed") else "\n".join(row.changes)),
        style=STYLES[row.status],
    )


def _shape(layer: Layer) -> str:
    return "x".join(map(str, layer.shape)) or "several"
