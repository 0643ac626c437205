"""What cannot be edited through is refused before anything changes, with what to give instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from contracts.networks import batch, build
from neuroexapt.errors import InputError, SurgeryError
from neuroexapt.graph import trace
from neuroexapt.surgery import Surgeon, Widen


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_model_under_ddp_is_refused_until_its_wrapper_is_gone_and_can_be_wrapped_again() -> None:
    model = build("conv_bn")
    optimizer = SGD(model.parameters(), lr=0.1)
    wrapped = DistributedDataParallel(model)
    wrapped(batch()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    refused = r"found `DistributedDataParallel`, .* Delete the wrapper, .* wrap it again"
    with pytest.raises(InputError, match=refused):
        Surgeon(wrapped, batch())
    with pytest.raises(InputError, match=refused):
        trace(wrapped, batch())
    with pytest.raises(SurgeryError, match=r"or a DistributedDataParallel around it"):
        Surgeon(model, batch(), optimizer).apply(Widen(axis="features.0", to=9))
    del wrapped
    Surgeon(model, batch(), optimizer).apply(Widen(axis="features.0", to=9))
    DistributedDataParallel(model)(batch()).sum().backward()
    assert model.features[0].weight.grad.shape[0] == 9  # type: ignore[union-attr,index]


@pytest.mark.usefixtures("process_group")
def test_sharded_parameters_are_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    with pytest.raises(InputError, match=r"`FSDPModule`, needed the plain model: .* before `fully_shard`"):
        Surgeon(fully_shard(build("conv_bn"), mesh=mesh), batch())
    model = build("plain_conv")
    model.conv1.weight = nn.Parameter(distribute_tensor(model.conv1.weight.detach(), mesh))
    with pytest.raises(InputError, match=r"conv1\.weight: found a distributed tensor, .* before it is sharded"):
        Surgeon(model, batch())


def test_data_parallel_is_refused_inside_a_model_too() -> None:
    model = build("conv_bn")
    model.features = nn.DataParallel(model.features)
    with pytest.raises(InputError, match=r"features: found `DataParallel`, .* Give its `\.module`"):
        Surgeon(model, batch())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*are deprecated:UserWarning")
def test_scripted_and_quantized_models_are_refused() -> None:
    with pytest.raises(InputError, match=r"found `ScriptModule`, .* Give the Python module"):
        Surgeon(torch.jit.trace(build("mlp"), batch()), batch())
    quantized = torch.ao.quantization.quantize_dynamic(build("mlp", torch.float32), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(InputError, match=r"layers\.1: found a quantized `Linear`, .* quantize it after"):
        Surgeon(quantized, batch(torch.float32))


def test_a_parameter_of_packed_integers_is_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.ones(6, 4, dtype=torch.int8), requires_grad=False)
            self.down = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(nn.functional.linear(x, self.up.float()))

    with pytest.raises(
        SurgeryError, match=r"up holds packed integers \(torch\.int8\); edit the model before it is quan"
    ):
        Surgeon(Packed(), torch.randn(2, 4)).apply(Widen(axis="up[0]", to=9))


def test_a_model_without_floating_point_outputs_cannot_be_verified_and_is_refused() -> None:
    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build("conv_bn")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).argmax(1)

    with pytest.raises(SurgeryError, match=r"Labels: found no floating-point tensor in its output, .* logits beside"):
        Surgeon(Labels(), batch()).apply(Widen(axis="net.features.0", to=9))
