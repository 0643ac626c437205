"""A model's graph as tables that fit eighty columns: totals, layers, channel groups."""

from __future__ import annotations

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from neuroexapt.graph import ChannelGroup, ModelGraph, permutation_error
from neuroexapt.report.quantities import in_bytes, in_count, in_flops, in_magnitude, in_number_of
from neuroexapt.surgery import candidates

GREY = "bright_black"
MAX_PATHS = 4  # shown of a group's producers or consumers


def totals(graph: ModelGraph) -> Text:
    """Returns size and cost, the self-test, and what was not understood."""
    cost = graph.cost
    free = [group for group in graph.groups if not group.pin_reason]
    error = permutation_error(graph, torch.Generator().manual_seed(0), free)
    lines = [
        f"{type(graph.model).__name__}: {in_count(cost.num_parameters)} parameters; per sample "
        f"{in_flops(cost.flops_per_sample)} and {in_bytes(cost.activation_bytes // cost.batch_size)} of activations",
        f"self-test: permuting {in_number_of(len(free), 'free group')} at once changes the outputs by "
        f"{in_magnitude(error)} of their size",
        *(f"note: {note}" for note in graph.notes),
        *(f"no rule for {name}: {why}" for name, why in graph.unknown_operators.items()),
    ]
    return Text("\n".join(lines))


def layer_table(graph: ModelGraph) -> Table:
    """Returns a row for each layer that has parameters, costs something or can be edited."""
    table = _table("Layers", "layer", "kind", "output", "parameters", "FLOPs", "edits")
    table.columns[3].justify = table.columns[4].justify = "right"
    edits = _edits_by_layer(graph)
    for call in graph.calls:
        module = graph.model.get_submodule(call.path)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        flops = graph.cost.flops_by_module.get(call.path, 0) // graph.cost.batch_size
        if own or flops or call.path in edits:
            table.add_row(
                Text(call.path or "(the model itself)"),
                Text(type(module).__name__.replace("Grafted", "grafted ")),
                "x".join(map(str, call.shape[1:])) or "several",
                in_count(own) if own else "",
                in_flops(flops).removesuffix("FLOP").strip() if flops else "",
                Text("\n".join(edits.get(call.path, []))),
            )
    return table


def group_table(graph: ModelGraph) -> Table:
    """Returns a row for each channel group; what cannot be changed is grey and says why."""
    table = _table("Channel groups", "group", "units", "also made by <-\nread by ->", "can be")
    table.columns[1].justify = "right"
    for group in graph.groups:
        possible = [name for name, can in (("widened", group.can_widen), ("pruned", group.can_prune)) if can]
        text = ", ".join(possible)
        if group.reason and len(possible) < 2:
            text = f"{text}; {group.reason}" if text else group.reason
        table.add_row(
            Text(group.name),
            str(group.size),
            Text("\n".join(_neighbours(group))),
            Text(text),
            style=None if possible else GREY,
        )
    return table


def _edits_by_layer(graph: ModelGraph) -> dict[str, list[str]]:
    producers = {group.name: group.producers for group in graph.groups}
    edits: dict[str, list[str]] = {}
    for mutation in candidates(graph):
        place = next(iter(producers.get(mutation.place, ())), mutation.place)
        names = edits.setdefault(place, [])
        if (name := type(mutation).__name__) not in names:
            names.append(name)
    return edits


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _neighbours(group: ChannelGroup) -> list[str]:
    # no blank after the arrow: a long path would be put on the next line as a whole
    producers = [f"<-{path}" for path in group.producers if path != group.name]
    return [*_shortened(producers), *_shortened([f"->{path}" for path in group.consumers])]


def _shortened(paths: list[str]) -> list[str]:
    more = [f"  and {len(paths) - MAX_PATHS} more"] if len(paths) > MAX_PATHS else []
    return [*paths[:MAX_PATHS], *more]
