"""The kernels on a real GPU: what they compute there is what PyTorch computes on the processor, in every
precision, and a model trains alike on both.

Skipped without a GPU, as on continuous integration; ``pytest tests/kernels/test_on_a_gpu.py`` on a machine
with one.
"""

import os

import pytest
import torch

from tiny_runs import tiny_config
from torchcram.mixers import MIXERS
from torchcram.ops.kernels import kernels_for
from torchcram.ops.routed_attention import routed_attention, routed_attention_reference
from torchcram.ops.routed_attention.tiled import tiled_attention
from torchcram.ops.scan import chunked, scan, scan_reference
from torchcram.training.build import build_model, build_task
from torchcram.training.distributed import make_accelerator
from torchcram.training.trainer import Trainer
from torchcram.types import RoutingControl

pytest.importorskip("triton", reason="the kernels need the package triton")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1", reason="Triton's interpreter takes the place of the GPU"
    ),
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}
# Double precision is not multiplied fast: no kernel is asked for it.
MULTIPLIED = (torch.float32, torch.float16, torch.bfloat16)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(outputs, inputs):
    """Return outputs, and the gradients of a mixture of them."""
    loss = sum(
        (output * drawn(*output.shape, seed=90 + index).to(output)).sum()
        for index, output in enumerate(outputs)
    )
    return [*outputs, *torch.autograd.grad(loss, inputs)]


def moved(tensors, dtype, device="cuda"):
    return [tensor.detach().to(device, dtype).requires_grad_() for tensor in tensors]


def close(mine, exact, *, tolerance):
    """Whether errors are small beside the largest number there is."""
    for one, other in zip(mine, exact, strict=True):
        one = one.detach().cpu().double()
        assert one.isfinite().all()
        assert (one - other.detach()).abs().max() <= tolerance * max(1.0, float(other.detach().abs().max()))


@pytest.mark.parametrize("dtype", MULTIPLIED)
@pytest.mark.parametrize(
    ("packed", "length", "size", "window", "splits"),
    [(5, 40, 8, None, 1), (70, 1500, 64, None, 3), (40, 700, 33, 130, 2)],
)
def test_attention_is_that_of_the_tiles_with_its_gradients(dtype, packed, length, size, window, splits):
    from torchcram.ops.routed_attention.triton import triton_attention

    end = torch.randint(1, length + 1, (2, packed), generator=torch.Generator().manual_seed(9)).sort(1).values
    # Scores of deviation one, as a model's are: rounding grows with them.
    tensors = [drawn(2, 2, count, size, seed=seed) for seed, count in enumerate((packed, length, length))]
    tensors[0] /= size**0.5
    ours = moved(tensors, dtype)
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in ours]
    mine = gradients(triton_attention(*ours, end.cuda(), window=window, splits=splits), ours)
    close(mine, gradients(tiled_attention(*exact, end, window=window), exact), tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("time", "size"), [(1, 5), (130, 40), (1000, 64)])
@pytest.mark.parametrize("backwards", [False, True])
def test_states_are_those_of_the_chunks(dtype, parts, time, size, backwards):
    from torchcram.ops.scan.triton import run

    decay, inputs = ([drawn(2, time, size, seed=seed + part) for part in range(parts)] for seed in (0, 10))
    initial = [drawn(2, size, seed=20 + part) for part in range(parts)]
    planes = [
        tuple(plane.cuda().to(dtype) for plane in group)
        for group in ([0.7 * plane.tanh() for plane in decay], inputs, initial)
    ]
    exact = [tuple(plane.cpu().double() for plane in group) for group in planes]
    close(
        run(*planes, backwards=backwards),
        chunked.run(*exact, backwards=backwards),
        tolerance=TOLERANCE[dtype],
    )


@pytest.mark.parametrize("window", [None, 50])
def test_the_public_attention_takes_the_kernel_and_is_the_reference(window):
    query, key, value = (drawn(2, 2, 300, 32, seed=seed) / (32**0.5 if seed == 0 else 1) for seed in range(3))
    selected = torch.rand(2, 300, generator=torch.Generator().manual_seed(3)) < 0.2
    ours, exact = (
        moved([query, key, value], torch.float32),
        [tensor.requires_grad_() for tensor in (query, key, value)],
    )
    assert kernels_for(ours[0])
    mine = gradients([routed_attention(*ours, selected.cuda(), window=window)], ours)
    close(
        mine, gradients([routed_attention_reference(*exact, selected, window=window)], exact), tolerance=2e-5
    )


def test_the_public_scan_takes_the_kernel_and_is_the_reference():
    decay = torch.complex(0.5 * drawn(2, 200, 16).clamp(-1, 1), 0.5 * drawn(2, 200, 16, seed=1).clamp(-1, 1))
    inputs = torch.complex(drawn(2, 200, 16, seed=2), drawn(2, 200, 16, seed=3))
    ours = [tensor.cuda().to(torch.complex64).requires_grad_() for tensor in (decay, inputs)]
    exact = [tensor.requires_grad_() for tensor in (decay, inputs)]
    first = [
        torch.zeros(2, 16, dtype=torch.complex128),
        torch.zeros(2, 16, dtype=torch.complex64, device="cuda"),
    ]
    found, expected = scan(*ours, first[1]), scan_reference(*exact, first[0])
    torch.testing.assert_close(
        found.detach().cpu().to(torch.complex128), expected.detach(), rtol=2e-5, atol=2e-5
    )
    for mine, other in zip(
        *(
            torch.autograd.grad(states.abs().square().sum(), tensors)
            for states, tensors in ((found, ours), (expected, exact))
        ),
        strict=True,
    ):
        torch.testing.assert_close(mine.cpu().to(torch.complex128), other, rtol=1e-3, atol=1e-3)


def losses(model, batch, control):
    output = model(batch, control=control)
    return sum(model.task_losses(output.outputs, batch).values())


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_model_learns_the_same_from_a_batch(mixer):
    config = tiny_config(model__options={}).updated("model.mixer", mixer)
    task = build_task(config)
    batch = task.batch(4, generator=torch.Generator().manual_seed(5))
    model = build_model(config, task)
    exact = build_model(config, task).double()
    control = RoutingControl(reads="all")
    mine, other = losses(model.cuda(), batch.to("cuda"), control), losses(exact, batch.double(), control)
    torch.testing.assert_close(mine.detach().cpu().double(), other.detach(), rtol=1e-4, atol=1e-4)
    parameters = [[one for one in model.parameters() if one.requires_grad] for model in (model, exact)]
    found = [
        torch.autograd.grad(loss, weights, allow_unused=True)
        for loss, weights in zip((mine, other), parameters, strict=True)
    ]
    assert [grad is None for grad in found[0]] == [grad is None for grad in found[1]]
    close(
        [grad for grad in found[0] if grad is not None],
        [grad for grad in found[1] if grad is not None],
        tolerance=1e-3,
    )


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_run_crosses_from_acquisition_to_routing(mixer):
    config = tiny_config(model__options={}).updated("model.mixer", mixer)
    trainer = Trainer(config, build_task(config), make_accelerator())
    assert next(trainer.plain.parameters()).is_cuda
    records = [trainer.train_step() for _ in range(12)]
    assert all(torch.tensor(list(record["losses"].values())).isfinite().all() for record in records)
