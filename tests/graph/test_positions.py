"""Index arithmetic against brute force: an index tensor is put through the operators that the spaces stand for."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from neuroexapt.graph.positions import NEW, occurrences, sources
from neuroexapt.graph.space import Space, concatenation, leaves, product

Tree = tuple  # ("leaf", key, size) | ("product", parts) | ("sum", parts)


def random_tree(rng: random.Random, depth: int, keys: list[int]) -> Tree:
    kind = rng.choice(["product", "sum"]) if depth else "leaf"
    if kind == "leaf":
        key = rng.choice(keys)
        return ("leaf", key, key + 2)
    return (kind, [random_tree(rng, rng.randrange(depth), keys) for _ in range(rng.randint(2, 3))])


def space_of(tree: Tree, table: dict[int, Space]) -> Space:
    if tree[0] == "leaf":
        return table[tree[1]]
    parts = [space_of(part, table) for part in tree[1]]
    return product(parts) if tree[0] == "product" else concatenation(parts)


def brute_force(tree: Tree, edits: dict[int, Tensor]) -> tuple[Tensor, int]:
    """Old indices of the edited dimension, by views and cat of real index tensors; and its old size."""
    if tree[0] == "leaf":
        return edits.get(tree[1], torch.arange(tree[2])), tree[2]
    parts = [brute_force(part, edits) for part in tree[1]]
    if tree[0] == "sum":
        total = sum(size for _, size in parts)
        chunks = torch.arange(total).split([size for _, size in parts])
        return torch.cat(
            [
                torch.where(index < 0, NEW, chunk[index.clamp_min(0)])
                for (index, _), chunk in zip(parts, chunks, strict=True)
            ]
        ), total
    grid = torch.arange(torch.Size([size for _, size in parts]).numel()).view([size for _, size in parts])
    new = torch.zeros(1, dtype=torch.bool)
    for dim, (index, _) in enumerate(parts):
        grid = grid.index_select(dim, index.clamp_min(0))
        view = [1] * len(parts)
        view[dim] = -1
        new = new | (index < 0).view(view)
    return torch.where(new, NEW, grid).flatten(), torch.Size([size for _, size in parts]).numel()


@pytest.mark.parametrize("seed", range(40))
def test_sources_of_random_trees_agree_with_index_tensors(seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    keys = [0, 1, 2]
    table = {key: Space(key + 2) for key in keys}
    tree = random_tree(rng, 3, keys)
    space = space_of(tree, table)
    edits = {key: torch.randperm(key + 2, generator=generator) for key in rng.sample(keys, 2)}
    grown = rng.choice(list(edits))
    edits[grown] = torch.cat([edits[grown], torch.tensor([NEW, 0, NEW])])
    found = sources(space, {table[key]: value for key, value in edits.items()})
    assert torch.equal(found, brute_force(tree, edits)[0])


def test_a_permutation_survives_view_transpose_and_chunk_of_an_index_tensor() -> None:
    heads, unit = Space(3), Space(4)
    whole = concatenation([product([heads, unit])] * 2)
    order, inner = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    index = torch.arange(24)[sources(whole, {heads: order, unit: inner})]
    for half, old in zip(index.chunk(2), torch.arange(24).chunk(2), strict=True):
        assert torch.equal(half.view(3, 4), old.view(3, 4)[order][:, inner])
    assert torch.equal(index.view(2, 3, 4).permute(2, 0, 1)[0], torch.arange(24).view(2, 3, 4)[:, order, 3])


def test_occurrences_are_the_slices_that_vary_with_a_leaf() -> None:
    a, b = Space(2), Space(3)
    whole = concatenation([a, product([a, b]), b])
    assert occurrences(whole, a) == [slice(0, 2), slice(2, 8)]
    assert occurrences(whole, b) == [slice(2, 8), slice(8, 11)]
    assert leaves(whole) == [a, a, b, b]
