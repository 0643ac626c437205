"""Running the user's ``forward`` with other sizes, on fake tensors, before anything is changed.

The algebra knows which indices belong together; only the code itself knows which sizes it has written down. A resize
is possible when the fake forward goes through with the new sizes and gives outputs of the old shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neuroexapt.graph.fakes import ExampleInputs, fake_forward
from neuroexapt.graph.resize import AttributeEdit, new_attributes, new_shapes
from neuroexapt.graph.space import Space
from neuroexapt.graph.values import Value

Shapes = list[tuple[int, ...]]


def output_shapes(outputs: object) -> Shapes:
    """Returns the shapes of all tensors in a model's output."""
    return [tuple(leaf.shape) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextlib.contextmanager
def attributes_set(model: nn.Module, edits: Sequence[AttributeEdit]) -> Iterator[None]:
    """Sets module attributes and puts the old values back."""
    before = [(model.get_submodule(e.module), e.name) for e in edits]
    saved = [(module, name, getattr(module, name)) for module, name in before]
    try:
        for edit, (module, name) in zip(edits, before, strict=True):
            setattr(module, name, edit.value)
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


def rehearse(
    model: nn.Module, inputs: ExampleInputs, parameters: dict[str, Value], sizes: dict[Space, int], expected: Shapes
) -> str:
    """Returns why the model does not run with these sizes, or ``""``."""
    shapes = new_shapes(parameters, sizes)
    edits = new_attributes(model, parameters, sizes)
    # Whatever the user's code raises on a size that it did not expect is the answer that is asked for here.
    try:
        with (
            attributes_set(model, edits),
            fake_forward(model, inputs, training=False, shapes=shapes) as (_, fake_inputs, _),
            torch.no_grad(),
        ):
            found = output_shapes(fake_inputs.call(model))
    except MemoryError:
        raise
    except Exception as error:
        return f"the forward fails at another size: {type(error).__name__}: {_first_line(error)}"
    return "" if found == expected else f"the output would change its shape from {expected} to {found}"


def unresizable(leaves: Sequence[Space], trial: Callable[[dict[Space, int]], str]) -> dict[Space, str]:
    """Finds the leaves that cannot be resized, by halving: one fake run when all can.

    Every leaf gets another increment, so that two sizes that the code ties do not hide each other.
    """
    sizes = {leaf: leaf.size + 1 + index for index, leaf in enumerate(leaves)}
    return _search(list(leaves), sizes, trial)


def _search(leaves: list[Space], sizes: dict[Space, int], trial: Callable[[dict[Space, int]], str]) -> dict[Space, str]:
    if not leaves:
        return {}
    why = trial({leaf: sizes[leaf] for leaf in leaves})
    if not why:
        return {}
    if len(leaves) == 1:
        return {leaves[0]: why}
    middle = len(leaves) // 2
    return {**_search(leaves[:middle], sizes, trial), **_search(leaves[middle:], sizes, trial)}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"
