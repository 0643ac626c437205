"""What differs between two architectures, layer by layer: a value that tables and pictures are made from.

A layer is a module that ran and that has parameters, costs something, or is another on the other side. Layers are the
same where their paths are. The order is that of execution; what is gone stands behind the layer that it followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from neuroexapt.graph.model_graph import ModelGraph

Status = Literal["unchanged", "wider", "narrower", "changed", "new", "removed"]

_OUT = ("out_channels", "out_features", "num_features", "embedding_dim", "embed_dim")
_IN = ("in_channels", "in_features")
_SIZES = {*_OUT, *_IN, "training", "normalized_shape"}
_GRAFTS = "grafts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One module as it ran.

    Attributes:
        path: Its name in the model; empty for the model itself.
        kind: Its class.
        shape: Of its output without the batch; empty where that is not one tensor.
        width: Channels or features that it gives.
        num_read: Channels or features that it reads, 0 where it does not say.
        num_parameters: Its own, and those of modules in it that do not run by themselves.
        flops: Forward FLOPs of its own for one sample.
        settings: Numbers and words that it was made with (kernel, stride, rate, ...), by name.
        tensors: Shapes of its own parameters by name.
        is_leaf: Whether no other module runs in it, pieces that hang on it aside.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    width: int
    num_read: int
    num_parameters: int
    flops: int
    settings: tuple[tuple[str, object], ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    is_leaf: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChange:
    """One layer on both sides; ``None`` where it is not.

    Attributes:
        before: In the first architecture.
        after: In the second.
        status: What happened to it: to its width first, then to anything else.
        changes: Everything that differs, in words; empty for what is new, removed or unchanged.
    """

    before: Layer | None
    after: Layer | None
    status: Status
    changes: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        """The layer as it is, or as it was."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Two architectures side by side; pairs are (first, second).

    Attributes:
        layers: In the order of execution.
        num_parameters: Of both models, tied ones once.
        flops: Forward FLOPs for one sample of both.
    """

    layers: tuple[LayerChange, ...]
    num_parameters: tuple[int, int]
    flops: tuple[int, int]

    def count(self, status: Status) -> int:
        """Returns how many layers have a status."""
        return sum(change.status == status for change in self.layers)


def difference(before: ModelGraph, after: ModelGraph) -> Difference:
    """Compares two architectures by the paths of their layers."""
    old, new = ({layer.path: layer for layer in _layers(graph)} for graph in (before, after))
    changes = [_change(old.get(path), new.get(path)) for path in _merged([*old], [*new])]
    costs = before.cost, after.cost
    return Difference(
        layers=tuple(change for change in changes if _is_shown(change)),
        num_parameters=(costs[0].num_parameters, costs[1].num_parameters),
        flops=(costs[0].flops_per_sample, costs[1].flops_per_sample),
    )


def folded(changes: Sequence[LayerChange], keep: int = 1) -> Iterator[LayerChange | int]:
    """Yields the layers; of a run of unchanged ones only ``keep`` at each end and, between, how many are left out."""
    run: list[LayerChange] = []
    for change in [*changes, None]:
        if change is not None and change.status == "unchanged":
            run.append(change)
            continue
        hidden = len(run) - 2 * keep
        if hidden > 1:
            yield from run[:keep]
            yield hidden
            yield from run[len(run) - keep :]
        else:
            yield from run
        run = []
        if change is not None:
            yield change


def _is_shown(change: LayerChange) -> bool:
    """An activation or a container is shown for what it has of its own, or for what happened to itself."""
    sides = [layer for layer in (change.before, change.after) if layer is not None]
    has_own = any(layer.num_parameters or layer.flops for layer in sides)
    is_other = len(sides) < 2 or sides[0].kind != sides[1].kind or sides[0].settings != sides[1].settings
    return has_own or (is_other and change.layer.is_leaf)


def _merged(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The second order, with what is gone behind what it followed."""
    merged, known = list(new), set(new)
    previous = -1
    for path in old:
        if path in known:
            previous = merged.index(path)
        else:
            previous += 1
            merged.insert(previous, path)
    return merged


def _layers(graph: ModelGraph) -> Iterator[Layer]:
    """Yields every module that ran, once; pieces behind the module that they hang on."""
    paths = list(dict.fromkeys(call.path for call in graph.calls))
    shapes = {call.path: call.shape for call in reversed(graph.calls)}
    counts = _num_parameters(graph.model, set(paths))
    for path in _site_first(paths):
        module = graph.model.get_submodule(path)
        children = [name for name, _ in module.named_children() if name != _GRAFTS]
        yield Layer(
            path=path,
            kind=type(module).__name__.removeprefix("Grafted"),
            shape=shapes[path][1:],
            width=_size(module, _OUT) or _channels(shapes[path]),
            num_read=_size(module, _IN),
            num_parameters=counts.get(path, 0),
            flops=graph.cost.flops_by_module.get(path, 0) // max(graph.cost.batch_size, 1),
            settings=tuple(_settings(module)),
            tensors=tuple((name, tuple(p.shape)) for name, p in module.named_parameters(recurse=False)),
            is_leaf=not children,
        )


def _site_first(paths: Sequence[str]) -> list[str]:
    """Puts a site before its pieces, which end before it does, and leaves everything else as it is."""
    position = {path: number for number, path in enumerate(paths)}

    def key(path: str) -> tuple[int, int]:
        site = path.split(f".{_GRAFTS}.")[0]
        return position.get(site, position[path]), 0 if path == site else 1 + position[path]

    return sorted(paths, key=key)


def _num_parameters(model: nn.Module, ran: set[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        while owner and owner not in ran:
            owner = owner.rpartition(".")[0]
        counts[owner] = counts.get(owner, 0) + parameter.numel()
    return counts


def _size(module: nn.Module, names: Sequence[str]) -> int:
    found = (vars(module).get(name) for name in names)
    return next((size for size in found if isinstance(size, int)), 0)


def _channels(shape: tuple[int, ...]) -> int:
    return (shape[1] if len(shape) == 4 else shape[-1]) if len(shape) > 1 else 0


def _settings(module: nn.Module) -> Iterator[tuple[str, object]]:
    for name, value in vars(module).items():
        parts = value if type(value) is tuple else (value,)
        if not name.startswith("_") and name not in _SIZES and all(type(p) in (int, float, bool, str) for p in parts):
            yield name, value


def _change(before: Layer | None, after: Layer | None) -> LayerChange:
    if before is None or after is None:
        return LayerChange(before=before, after=after, status="new" if before is None else "removed")
    changes = tuple(_words(before, after))
    status: Status = "changed" if changes else "unchanged"
    if changes and before.width != after.width:
        status = "wider" if after.width > before.width else "narrower"
    return LayerChange(before=before, after=after, status=status, changes=changes)


def _words(before: Layer, after: Layer) -> Iterator[str]:
    """Says what differs, the most telling first; shapes of parameters only where nothing else explains them."""
    is_explained = False
    for name, old, new in (
        ("", before.kind, after.kind),
        ("width", before.width, after.width),
        ("reads", before.num_read, after.num_read),
    ):
        if old != new:
            is_explained = True
            yield f"{name} {old} → {new}".strip()
    settings = dict(before.settings), dict(after.settings)
    if before.kind == after.kind:
        for name in settings[0]:
            if name in settings[1] and settings[0][name] != settings[1][name]:
                is_explained = True
                yield f"{name.removesuffix('_size')} {_value(settings[0][name])} → {_value(settings[1][name])}"
    tensors = dict(before.tensors), dict(after.tensors)
    yield from (f"{name} new" for name in tensors[1] if name not in tensors[0])
    yield from (f"{name} gone" for name in tensors[0] if name not in tensors[1])
    if before.shape[1:] != after.shape[1:] and len(before.shape) == 3 == len(after.shape):
        yield f"output {_value(before.shape)} → {_value(after.shape)}"
    if not is_explained:
        for name in tensors[0]:
            if name in tensors[1] and tensors[0][name] != tensors[1][name]:
                yield f"{name} {_value(tensors[0][name])} → {_value(tensors[1][name])}"


def _value(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
