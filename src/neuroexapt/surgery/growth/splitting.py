"""The direction in which a unit is best split: the least eigenvector of its splitting matrix.

Dividing a unit into halves with incoming weights w + d and w - d changes the loss by d' S d / 2 + o(|d|^2), with
S = E[dL/da * hessian of a(w)] the splitting matrix (Wu, Wang & Liu 2019, Splitting steepest descent): the first order
cancels, and so do all cross terms between units. So S d is a Hessian-vector product of the split model in the
direction (d, -d), whatever lies between the unit and the loss, and a few Lanczos steps find its least eigenvector for
all units at once. For piecewise linear activations S is zero and there is no such direction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroexapt.errors import SurgeryError
from neuroexapt.graph import ModelGraph, generators_kept, in_mode
from neuroexapt.surgery.checking.structure import edited_twin
from neuroexapt.surgery.plan import Plan

LANCZOS_STEPS = 12  # Hessian-vector products; the least eigenvalue of a small dense matrix converges first


def steepest_directions(graph: ModelGraph, split: Plan, weight: str, kept: Tensor, copies: Tensor) -> Tensor:
    """Returns unit vectors along which splitting lowers the loss most; zero where the splitting matrix is.

    Args:
        graph: Of the model before; with an objective.
        split: Divides the units in equal halves.
        weight: Name of the parameter that makes the units, rows first.
        kept: int64 ``[units]``, rows of the originals after the split.
        copies: int64 ``[units]``, rows of their copies.

    Returns:
        ``[units, fan in]``.

    Raises:
        SurgeryError: The objective cannot be differentiated twice.
    """
    assert graph.objective is not None
    twin = edited_twin(graph, split)
    parameter = twin.get_parameter(weight).requires_grad_()

    def apart(gradient: Tensor) -> Tensor:
        return (gradient[kept] - gradient[copies]).flatten(1)

    with in_mode(twin, False), generators_kept(seed=0), torch.enable_grad():
        try:
            (gradient,) = torch.autograd.grad(graph.objective(twin), parameter, create_graph=True)
            difference = apart(gradient)

            def product(direction: Tensor) -> Tensor:
                (second,) = torch.autograd.grad(difference, parameter, direction, retain_graph=True, allow_unused=True)
                return torch.zeros_like(direction) if second is None else apart(second)

            found, values = least_eigenvectors(product, torch.ones_like(difference))
        except RuntimeError as error:  # autograd's only way to say that an operator has no second derivative
            raise SurgeryError(
                f"{weight}: the objective cannot be differentiated twice: {error} Give direction='random'."
            ) from error
    size = parameter.detach()[kept].flatten(1).norm(dim=1)
    noise = torch.finfo(parameter.dtype).eps ** 0.5 * gradient.detach()[kept].flatten(1).norm(dim=1) / size
    return torch.where((values.abs() > noise)[:, None], found, 0.0)


def least_eigenvectors(product: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the least eigenvalue of many symmetric matrices at once, by Lanczos with full orthogonalisation.

    Args:
        product: Multiplies every matrix with its row: ``[n, d]`` to ``[n, d]``.
        start: Like a row of vectors, for shape and dtype; the start is a fixed random one.

    Returns:
        Unit eigenvectors ``[n, d]`` and eigenvalues ``[n]``.
    """
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
    basis: list[Tensor] = []
    images: list[Tensor] = []
    for _ in range(min(LANCZOS_STEPS, start.shape[1])):
        for _ in range(2):
            for earlier in basis:
                vector = vector - (vector * earlier).sum(1, keepdim=True) * earlier
        size = vector.norm(dim=1, keepdim=True)
        basis.append(torch.where(size > torch.finfo(start.dtype).tiny, vector / size, 0.0))
        images.append(product(basis[-1]).detach())
        vector = images[-1]
    space, image = torch.stack(basis, 1), torch.stack(images, 1)
    small = space @ image.transpose(1, 2)
    values, vectors = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    found = (vectors[:, :, :1] * space).sum(1)
    return torch.nn.functional.normalize(found, dim=1), values[:, 0]
