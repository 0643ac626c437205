"""``trace`` looks and touches nothing, and says what it could not read."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module as module_internals
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contracts.networks import NETWORKS, batch, build
from contracts.state import fingerprint
from neuroexapt.errors import InputError, TraceError
from neuroexapt.graph import distrusted_groups, trace


class Allocations(TorchDispatchMode):
    """Sums the bytes of all real tensors that operators return."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) and leaf.device.type != "meta":
                self.num_bytes += leaf.numel() * leaf.element_size()
        return result


def test_tracing_a_hundred_megabytes_allocates_nothing_of_that_size() -> None:
    model = nn.Sequential(
        *[layer for _ in range(6) for layer in (nn.Linear(2048, 2048), nn.ReLU())], nn.Linear(2048, 5)
    )
    assert sum(p.numel() * p.element_size() for p in model.parameters()) > 100e6
    inputs = torch.randn(2, 2048)
    with Allocations() as allocations:
        assert sum(group.can_widen for group in trace(model, inputs).groups) == 6
    assert allocations.num_bytes < 1e6


@pytest.mark.parametrize("name", NETWORKS)
def test_tracing_and_asking_touch_nothing(name: str) -> None:
    model = build(name)
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
    before = fingerprint(model, SGD(model.parameters(), lr=0.1))
    hooks = [len(module_internals._global_forward_hooks), len(module_internals._global_forward_pre_hooks)]
    python, numpy = random.getstate(), np.random.get_state()[1].tobytes()
    graph = trace(model, batch())
    assert [g.can_widen for g in graph.groups]
    distrusted_groups(graph, torch.Generator(), 1e-6)
    after = fingerprint(model, SGD(model.parameters(), lr=0.1))
    assert after == before
    assert hooks == [len(module_internals._global_forward_hooks), len(module_internals._global_forward_pre_hooks)]
    assert (python, numpy) == (random.getstate(), np.random.get_state()[1].tobytes())


class Remembers(nn.Module):
    """A forward that caches a tensor, counts, collects, registers a buffer and draws from three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)
        self.count, self.seen, self.cache = 0, [], {}

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        y = torch.relu(self.up(x)) * random.random() * float(np.random.rand()) * torch.rand(1)
        self.last = y
        self.seen.append(y)
        self.cache["y"] = y
        self.register_buffer("mask", torch.ones_like(y))
        return self.down(y)


def test_what_a_forward_remembers_is_forgotten_after_a_trace() -> None:
    model = Remembers()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    trace(model, torch.randn(2, 4, generator=torch.Generator()))
    assert (model.count, model.seen, model.cache) == (0, [], {})
    assert not hasattr(model, "last")
    assert list(model.state_dict()) == ["up.weight", "up.bias", "down.weight", "down.bias"]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tobytes())


class Fails(nn.Module):
    def __init__(self, only_in_train_mode: bool) -> None:
        super().__init__()
        self.only_in_train_mode = only_in_train_mode
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.only_in_train_mode:
            self.inner(x)
            raise ArithmeticError("the flux capacitor is empty")
        return self.inner(x)


def test_a_failing_forward_is_shown_and_everything_is_put_back() -> None:
    model = Fails(only_in_train_mode=False).train()
    before = fingerprint(model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(
        TraceError, match=r"Fails: forward failed .* ArithmeticError: the flux capacitor is empty\. Give"
    ):
        trace(model, torch.randn(2, 4, generator=torch.Generator()))
    assert fingerprint(model, SGD(model.parameters(), lr=0.1)) == before
    assert not module_internals._global_forward_hooks
    assert not module_internals._global_forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_inputs_of_another_shape_show_the_models_own_error() -> None:
    with pytest.raises(
        TraceError, match=r"PlainConv: forward failed on the example inputs with RuntimeError: .*channels"
    ):
        trace(build("plain_conv"), torch.randn(2, 5, 8, 8).double())


def test_a_forward_that_depends_on_values_is_a_trace_error() -> None:
    class Branches(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(TraceError, match="DataDependentOutputException"):
        trace(Branches(4, 4), torch.randn(2, 4))


def test_a_lazy_module_is_a_trace_error_that_says_what_to_do() -> None:
    with pytest.raises(TraceError, match=r"0\.weight: has no shape yet\. Run one forward"):
        trace(nn.Sequential(nn.LazyLinear(4)), torch.randn(2, 4))


def test_a_model_that_runs_only_in_eval_mode_is_noted() -> None:
    graph = trace(Fails(only_in_train_mode=True), torch.randn(2, 4))
    assert len(graph.notes) == 1
    assert graph.notes[0].startswith("not traced in train mode: Fails: forward failed")
    assert graph.group("inner.0").can_widen


def test_parameters_that_are_not_reached_are_pinned() -> None:
    class Unreached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 6), nn.Linear(6, 7)
            self.head, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = torch.relu(self.used(x))
            return (self.head(y), self.auxiliary(y)) if self.training else (self.head(y),)

    graph = trace(Unreached(), torch.randn(2, 4))
    assert all(
        space.pin_reason == "unused.weight is not reached by the forward on these inputs"
        for space in graph.parameters["unused.weight"].dims
    )
    members = [(m.path, m.dim) for m in graph.group("used").members]
    assert ("auxiliary.weight", 1) in members


def test_a_module_used_twice_and_at_two_paths_is_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(4, 6)
            self.first = nn.Linear(6, 6)
            self.second = self.first
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.second(torch.relu(self.first(torch.relu(self.enter(x)))))))

    graph = trace(Twice(), torch.randn(2, 4))
    assert [m.path for m in graph.group("enter").members if m.dim == 1] == ["first.weight", "head.weight"]
    assert [call.path for call in graph.calls].count("first") == 2


def test_tied_weights_are_read_once_and_follow_in_every_modules_attributes() -> None:
    graph = trace(build("tied_weights"), batch())
    assert "again.weight" not in graph.parameters
    edits = graph.resizing({graph.group("up").leaf: 13}).attributes
    assert {(e.module, e.name, e.value) for e in edits} == {
        ("up", "out_features", 13), ("down", "in_features", 13), ("again", "in_features", 13),
    }  # fmt: skip


def test_norms_without_parameters_follow_by_their_attributes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    graph = trace(model, torch.randn(2, 3, 5, 5))
    edits = graph.resizing({graph.group("0").leaf: 6}).attributes
    assert {(e.module, e.name) for e in edits} >= {("1", "num_features"), ("2", "num_features")}


def test_inputs_may_be_a_tensor_a_tuple_or_a_dictionary() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            return {"logits": self.b(torch.relu(self.a(x)) * scale)}

    x = torch.randn(2, 4)
    for inputs in (x, (x, 2.0), {"x": x, "scale": 2.0}):
        assert trace(TwoInputs(), inputs).group("a").can_widen


def test_a_forward_under_inference_mode_is_read_or_pinned() -> None:
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                return self.head(F.relu(self.norm(self.conv(x))))

    graph = trace(Inference(), torch.randn(2, 3, 4, 4))
    assert not distrusted_groups(graph, torch.Generator(), 1e-5)


def test_no_fake_tensor_outlives_a_trace() -> None:
    kept_by_others = [x for x in gc.get_objects() if type(x) is FakeTensor]  # torch.compile keeps some
    known = {id(x) for x in kept_by_others}
    graph = trace(build("transformer"), batch())
    assert graph.groups
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is FakeTensor and id(x) not in known]


def test_groups_are_found_by_name_producer_or_parameter_and_errors_list_what_there_is() -> None:
    graph = trace(build("resnet_basic"), batch())
    group = graph.group("stem.0")
    assert graph.group("blocks.0.conv2") is group is graph.group("blocks.0.conv1.weight[1]")
    with pytest.raises(InputError, match=r"nowhere: no group by that name\. Known are stem\.0, "):
        graph.group("nowhere")
    with pytest.raises(InputError, match=r"fc1.weight\[1\]: several groups"):
        trace(build("flatten_linear"), batch()).group("fc1.weight[1]")


def test_explain_says_what_keeps_an_axis_from_changing() -> None:
    graph = trace(build("transformer"), batch())
    assert graph.explain("up.weight", 0) == "up: free"
    assert graph.explain("up.weight", 1).startswith("embed: ")
    assert graph.explain("head.weight", 0) == "head: an axis of the model's output"
    with pytest.raises(InputError, match=r"up.weight\[2\]: no such parameter dimension in Transformer"):
        graph.explain("up.weight", 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_group_names_are_unique_and_every_closed_group_has_a_reason(name: str) -> None:
    groups = trace(build(name), batch()).groups
    assert len({g.name for g in groups}) == len(groups)
    assert all(g.can_widen or len(g.reason) > 10 for g in groups)


def test_an_axis_that_nobody_reads_or_that_is_too_small_says_so() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    class Unread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.gain = model, nn.Parameter(torch.ones(7))

        def forward(self, x: Tensor) -> Tensor:
            torch.relu(x.new_zeros(1) * self.gain)
            return self.net(x)

    graph = trace(Unread(), torch.randn(2, 4))
    assert graph.group("gain[0]").reason == "no parameter reads the axis, so new units could not be silent"
    assert graph.group("net.0").can_prune


@pytest.mark.parametrize("was_enabled", [True, False])
def test_a_trace_leaves_the_garbage_collector_as_it_was(was_enabled: bool) -> None:
    (gc.enable if was_enabled else gc.disable)()
    try:
        trace(build("mlp"), batch())
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
