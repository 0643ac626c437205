"""Skip connections: shapes, copies, gradients, and a wire that holds nothing between forwards."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from contracts.networks import batch, build
from neuroexapt.errors import SurgeryError
from neuroexapt.surgery import AddBranch, AddResidual, InsertLayer, Lineage, RemoveLayer, Surgeon, Widen, replay
from neuroexapt.surgery.pieces import SkipConnection
from neuroexapt.surgery.writing.graft import pieces_of

EXACT = 1e-10
ACROSS = AddResidual(source="stem.2", target="blocks.1.bn2")  # 6 channels of 8x8 to 8 of 4x4


class Shapes(nn.Module):
    """Maps of several sizes, then vectors of several widths."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.same = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.down, self.up = nn.Conv2d(4, 6, 3, 2, 1), nn.ConvTranspose2d(6, 5, 4, 2, 1)
        self.first, self.second, self.third = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 9)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(torch.relu(self.down(torch.relu(self.same(torch.relu(self.wide(x))))))))
        x = torch.relu(self.second(torch.relu(self.first(x.mean((2, 3))))))
        return self.head(torch.relu(self.third(x)))


def piece_at(model: nn.Module, path: str) -> SkipConnection:
    (found,) = [piece for piece in pieces_of(model.get_submodule(path)) if isinstance(piece, SkipConnection)]
    return found


def opened(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.fill_(0.5)
    return model


@pytest.mark.parametrize(
    ("source", "target", "resampling", "expected"),
    [
        ("wide", "same", "", lambda x, w: x),
        ("wide", "down", "down", lambda x, w: F.conv2d(F.avg_pool2d(x, 2), w)),
        ("down", "up", "up", lambda x, w: F.interpolate(F.conv2d(x, w), scale_factor=2)),
        ("wide", "up", "", lambda x, w: F.conv2d(x, w)),
        ("wide", "first", "mean", lambda x, w: F.linear(x.mean((2, 3)), w)),
        ("first", "second", "", lambda x, w: x),
        ("first", "third", "", lambda x, w: F.linear(x, w)),
    ],
)
def test_a_skip_adds_the_source_in_the_targets_shape(source, target, resampling, expected) -> None:  # type: ignore[no-untyped-def]
    model = Shapes().double()
    seen: dict[str, Tensor] = {}
    for path in (source, target):
        model.get_submodule(path).register_forward_hook(lambda m, a, out, path=path: seen.update({path: out.detach()}))
    surgeon = Surgeon(model, batch())
    surgeon.apply(AddResidual(source=source, target=target))
    model(batch())
    before = seen[target]
    opened(model)(batch())
    piece = piece_at(model, target)
    assert piece.resampling == resampling
    weight = None if piece.adapter is None else piece.adapter.weight
    assert (seen[target] - before - 0.5 * expected(seen[source], weight)).abs().max() <= EXACT


def test_sizes_follow_the_input_and_later_edits() -> None:
    model = build("resnet_basic").eval()
    Surgeon(model, batch()).apply(ACROSS)
    opened(model)
    surgeon = Surgeon(model, batch())
    for edit in (
        Widen(axis="stem.0", to=9),
        Widen(axis="blocks.1.conv2", to=11),
        InsertLayer(site="stem.2"),
        InsertLayer(site="blocks.1.bn2"),
        AddBranch(site="stem.0", branch="1x1"),
        AddResidual(source="stem.2", target="blocks.0.bn2"),
        Widen(axis="stem.0", to=10),
    ):
        assert surgeon.apply(edit).output_change <= EXACT, edit
    piece = piece_at(model, "blocks.1.bn2")
    assert piece.adapter is not None
    assert piece.adapter.weight.shape == (11, 10, 1, 1)
    assert model(torch.randn(3, 3, 14, 10).double()).shape == (3, 5)


def test_the_gradient_reaches_the_source_through_the_skip() -> None:
    model = opened(_with_skip(Shapes().double(), AddResidual(source="wide", target="up")))
    with torch.no_grad():
        model.down.weight.zero_()  # closes the path through the layers
    model(batch()).square().sum().backward()
    assert model.wide.weight.grad.abs().max() > 0
    assert not model.same.weight.grad.any()


def _with_skip(model: nn.Module, mutation: AddResidual = ACROSS) -> nn.Module:
    Surgeon(model, batch()).apply(mutation)
    return model


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_a_wire_of_their_own(copied) -> None:  # type: ignore[no-untyped-def]
    model = opened(_with_skip(build("resnet_basic"))).eval()
    twin = copied(model)
    source, target = pieces_of(twin.stem[2])[0], piece_at(twin, "blocks.1.bn2")
    assert source.wire is target.wire
    assert target.wire is not piece_at(model, "blocks.1.bn2").wire
    assert torch.equal(twin(batch()), model(batch()))
    assert (target.wire.source, target.wire.target) == ("stem.2", "blocks.1.bn2")


def test_an_average_of_the_model_has_a_wire_of_its_own_and_follows() -> None:
    model = build("resnet_basic")
    average = copy.deepcopy(model).requires_grad_(False)
    surgeon = Surgeon(model, batch(), averages=average)
    patch = surgeon.apply(ACROSS)
    for some in (model, average):
        opened(some).eval()
    wires = {id(piece_at(some, "blocks.1.bn2").wire) for some in (model, average)}
    assert len(wires) == 2
    assert torch.equal(model(batch()), average(batch()))
    surgeon.revert(patch)
    assert type(average.stem[2]) is nn.ReLU


def test_a_forward_leaves_nothing_on_the_wire() -> None:
    model = _with_skip(build("resnet_basic"))
    kept: list[weakref.ref[Tensor]] = []
    model.stem[2].register_forward_hook(lambda m, args, output: kept.append(weakref.ref(output)))
    for training in (True, False):
        model.train(training)(batch()).sum().backward()
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_a_forward_that_broke_off_does_not_keep_the_model_from_being_edited() -> None:
    """In another thread, as autograd's own on an accelerator, where no later forward would overwrite what was left."""
    model = _with_skip(build("resnet_basic"))
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = model.blocks[0].register_forward_pre_hook(lambda m, args: 1 / 0)

    def broken() -> None:
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            model(batch())

    with ThreadPoolExecutor(1) as pool:
        pool.submit(broken).result()
        handle.remove()
        gc.collect()
        Surgeon(model, batch(), optimizer).apply(Widen(axis="stem.0", to=9))
    model(batch()).sum().backward()


def test_threads_that_serve_one_model_do_not_mix_their_wires() -> None:
    model = opened(_with_skip(build("resnet_basic"))).eval()
    inputs = [batch(size=size) for size in (1, 2, 3, 4) * 4]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [model(x) for x in inputs]
        assert all(torch.equal(a, b) for a, b in zip(pool.map(model, inputs), expected, strict=True))


def test_a_target_that_runs_without_its_source_says_so() -> None:
    model = _with_skip(build("resnet_basic"))
    with pytest.raises(SurgeryError, match=r"blocks\.1\.bn2: found no output of stem\.2, needed it for the skip"):
        model.blocks(model.stem[1](model.stem[0](batch())))


def test_a_source_in_place_gives_what_it_returned_whatever_is_hung_on_it_later() -> None:
    """In ``BasicBlock`` a relu writes into the norm's output; a later piece on the norm would shield it from that."""
    model = build("resnet_basic").eval()
    surgeon = Surgeon(model, batch())
    surgeon.apply(AddResidual(source="blocks.1.bn1", target="blocks.1.bn2"))
    assert pieces_of(model.blocks[1].bn1)[0].copies
    opened(model)
    assert Surgeon(model, batch()).apply(InsertLayer(site="blocks.1.bn1")).output_change <= EXACT
    model.train()(batch()).sum().backward()


def test_a_lineage_with_skips_replays_on_the_meta_device() -> None:
    model, seed_model = build("resnet_basic").eval(), build("resnet_basic").to("meta").eval()
    surgeon = Surgeon(model, batch())
    surgeon.apply(ACROSS)
    surgeon.apply(AddResidual(source="blocks.0.bn2", target="blocks.1.bn2"))
    replay(seed_model, Lineage.from_json(surgeon.lineage.to_json()), batch())
    seed_model.load_state_dict(opened(model).state_dict(), strict=True, assign=True)
    assert torch.equal(seed_model(batch()), model(batch()))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("up", "down", r"down: found it to run before up, needed it after\. Exchange source and target\."),
        ("first", "head", r"head: cannot hang a piece here: an axis of the model's output"),
        ("wide", "nowhere", r"nowhere: no module of that path runs in Shapes"),
    ],
)
def test_skips_that_cannot_be_are_refused_with_the_reason(source: str, target: str, message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        _with_skip(Shapes().double(), AddResidual(source=source, target=target))


def test_outputs_that_see_other_positions_are_refused() -> None:
    with pytest.raises(SurgeryError, match=r"attention\.proj: cannot add the output of embed: found outputs of shapes"):
        _with_skip(build("transformer"), AddResidual(source="embed", target="attention.proj"))


@pytest.mark.parametrize("fields", [{"source": "a", "target": "a"}, {"source": 1, "target": "a"}])
def test_malformed_skips_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="needs two different paths, found source"):
        AddResidual(**fields)  # type: ignore[arg-type]


class Checkpointed(nn.Module):
    """Two parts; which of them is recomputed in the backward is a choice."""

    def __init__(self, parts: tuple[tuple[int, ...], ...], reentrant: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head, self.parts, self.reentrant = nn.Linear(6, 2), parts, reentrant

    def _run(self, x: Tensor, layers: tuple[int, ...]) -> Tensor:
        for layer in layers:
            x = torch.tanh(self.layers[layer](x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            if len(part) > 1 and self.training:
                x = checkpoint(self._run, x, part, use_reentrant=self.reentrant)
            else:
                x = self._run(x, part)
        return self.head(x)


def _checkpointed(parts: tuple[tuple[int, ...], ...], reentrant: bool = False) -> tuple[nn.Module, Tensor]:
    """Grown as a plain model, run as a checkpointed one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Checkpointed(((0,), (1,), (2,)), reentrant).double(), torch.randn(4, 6).double()
    Surgeon(model, x).apply(AddResidual(source="layers.0", target="layers.1"))
    opened(model).train()
    model.parts = parts
    return model, x.requires_grad_()


def _gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model(x).square().sum().backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_both_ends_in_one_checkpointed_part_give_the_same_gradients(reentrant: bool) -> None:
    plain = _gradients(*_checkpointed(((0,), (1,), (2,))))
    model, x = _checkpointed(((0, 1), (2,)), reentrant)
    assert all(torch.equal(a, b) for a, b in zip(_gradients(model, x), plain, strict=True))


class Around(Checkpointed):
    """The source alone is recomputed."""

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self._run, x, (0,), use_reentrant=self.reentrant)
        return self.head(self._run(x, (1, 2)))


def test_a_source_alone_in_a_checkpointed_part_gets_its_gradient_and_the_model_can_be_edited_after() -> None:
    plain = _gradients(*_checkpointed(((0,), (1,), (2,))))
    model, x = _checkpointed(((0,), (1,), (2,)))
    model.__class__ = Around
    assert all(torch.equal(a, b) for a, b in zip(_gradients(model, x), plain, strict=True))
    model.__class__ = Checkpointed
    Surgeon(model, x.detach()).apply(Widen(axis="layers.0", to=9))


def test_a_target_alone_in_a_checkpointed_part_is_refused_in_the_backward() -> None:
    model, x = _checkpointed(((0,), (1, 2)))
    loss = model(x).sum()
    with pytest.raises(
        SurgeryError, match=r"layers\.1: found no output of layers\.0, .* put both into one checkpointed"
    ):
        loss.backward()


def test_a_source_without_gradients_before_a_target_with_them_is_refused() -> None:
    message = r"layers\.1: found the output of layers\.0 without gradients, .* use_reentrant=False"
    model, x = _checkpointed(((0,), (1,), (2,)), reentrant=True)
    with torch.no_grad():
        hidden = model._run(x, (0,))
    with pytest.raises(SurgeryError, match=message):
        model._run(hidden, (1,))
    model.__class__ = Around
    with pytest.raises(SurgeryError, match=message):
        model(x)


@pytest.mark.parametrize("path", ["stem.2", "blocks.1.bn2"])
def test_a_skip_goes_with_the_module_where_it_begins_or_ends(path: str) -> None:
    model = build("resnet_basic")
    surgeon = Surgeon(model, batch())
    surgeon.apply(ACROSS)
    piece_at(model, ACROSS.target).scale.data.fill_(0.5)
    patch = surgeon.apply(RemoveLayer(path=path))
    assert patch.declared
    assert not [name for name, _ in model.named_modules() if "grafts" in name]
    surgeon.revert(patch)
    assert piece_at(model, ACROSS.target).scale.any()
    surgeon.apply(Widen(axis="stem.0", to=8))
