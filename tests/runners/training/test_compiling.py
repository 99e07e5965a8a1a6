"""torch.compile: never on a CPU, on a GPU only in a long run; and the loss on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer
from runners.training import lora, loss
from runners.training.loss import TrainingLoss, choose_loss, restore_loss

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_compile_is_off_on_cpu_with_reason(tiny: Model, examples: Sequence[Example]) -> None:
    assert loss.compiling_pays("cpu", 10**12, 1.0) == (False, loss.NO_CPU_COMPILE)
    net = lora.prepare_model(tiny, TrainConfig(rank=4))
    rows = [ChatTokenizer(tiny.folder).example(e) for e in examples[:4]]
    chosen = choose_loss(net, rows, tokens=10**12)
    assert chosen.choice() == {"path": "fast", "reason": "", "compiling": loss.NO_CPU_COMPILE}
    assert float(restore_loss(net, "fast", "")(rows).detach()) == float(chosen(rows).detach())


def test_compile_is_on_only_for_long_cuda_runs() -> None:
    short, why = loss.compiling_pays("cuda", 1_000_000, 10_000)
    assert not short
    assert "a run of 100 s" in why
    assert loss.compiling_pays("cuda", 100_000_000, 10_000)[0]
    assert not loss.compiling_pays("mps", 100_000_000, 10_000)[0]


def test_more_tokens_never_switch_compile_off() -> None:
    decisions = [loss.compiling_pays("cuda", tokens, 5_000)[0] for tokens in range(0, 20_000_000, 500_000)]
    assert decisions == sorted(decisions)


@GPU
@pytest.mark.parametrize("method", ["lora", "full"])
def test_rows_path_on_gpu_equals_plain_loss_and_gradients(
    tiny: Model, examples: Sequence[Example], method: str
) -> None:
    net = lora.prepare_model(tiny, TrainConfig(method=method, rank=4)).float()
    rows = [ChatTokenizer(tiny.folder).example(e) for e in examples[:5]]
    chosen = choose_loss(net, rows)
    assert (chosen.path, chosen.reason) == ("rows", "not on a CPU")
    expected = TrainingLoss(net, chosen.causal, "plain")(rows)
    value = chosen(rows)
    assert value.device.type == "cuda"
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted = torch.autograd.grad(expected, list(lora.trainable_parameters(net).values()))
    for a, b in zip(
        torch.autograd.grad(value, list(lora.trainable_parameters(net).values())), wanted, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


@GPU
def test_long_gpu_run_is_compiled_and_resumes_compiled(tiny: Model, examples: Sequence[Example]) -> None:
    net = lora.prepare_model(tiny, TrainConfig(rank=4))
    rows = [ChatTokenizer(tiny.folder).example(e) for e in examples[:5]]
    chosen = choose_loss(net, rows, tokens=10**12)
    assert chosen.path == "compiled", chosen.compiling
    resumed = restore_loss(net, chosen.path, chosen.reason)
    assert float(resumed(rows).detach()) == pytest.approx(float(chosen(rows).detach()), rel=1e-3)
