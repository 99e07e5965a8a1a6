"""When torch.compile pays: never on a CPU, on a GPU only in a long run; and what a GPU computes is the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from runners import attach, compiling
from runners.chat import Chat
from runners.data import Example
from runners.loss import Loss, choose, restore
from runners.models import Model
from runners.tuning import TrainConfig

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_never_on_a_cpu_and_the_reason_is_kept(tiny: Model, examples: Sequence[Example]) -> None:
    assert compiling.pays("cpu", 10**12, 1.0) == (False, compiling.ON_CPU)
    net = attach.attach(tiny, TrainConfig(rank=4))
    rows = [Chat(tiny.folder).example(e) for e in examples[:4]]
    chosen = choose(net, rows, tokens=10**12)
    assert chosen.choice() == {"path": "fast", "reason": "", "compiling": compiling.ON_CPU}
    assert float(restore(net, "fast", "")(rows).detach()) == float(chosen(rows).detach())


def test_only_where_a_run_is_long_enough() -> None:
    short, why = compiling.pays("cuda", 1_000_000, 10_000)
    assert not short
    assert "a run of 100 s" in why
    assert compiling.pays("cuda", 100_000_000, 10_000)[0]
    assert not compiling.pays("mps", 100_000_000, 10_000)[0]


def test_more_tokens_never_turn_it_off() -> None:
    found = [compiling.pays("cuda", tokens, 5_000)[0] for tokens in range(0, 20_000_000, 500_000)]
    assert found == sorted(found)


@GPU
@pytest.mark.parametrize("method", ["lora", "full"])
def test_rows_are_computed_on_a_gpu(tiny: Model, examples: Sequence[Example], method: str) -> None:
    net = attach.attach(tiny, TrainConfig(method=method, rank=4)).float()
    rows = [Chat(tiny.folder).example(e) for e in examples[:5]]
    chosen = choose(net, rows)
    assert (chosen.path, chosen.reason) == ("rows", "not on a CPU")
    expected = Loss(net, chosen.causal, "plain")(rows)
    found = chosen(rows)
    assert found.device.type == "cuda"
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted = torch.autograd.grad(expected, list(attach.trained(net).values()))
    for a, b in zip(torch.autograd.grad(found, list(attach.trained(net).values())), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


@GPU
def test_a_long_run_on_a_gpu_is_compiled_and_goes_on_so(tiny: Model, examples: Sequence[Example]) -> None:
    net = attach.attach(tiny, TrainConfig(rank=4))
    rows = [Chat(tiny.folder).example(e) for e in examples[:5]]
    chosen = choose(net, rows, tokens=10**12)
    assert chosen.path == "compiled", chosen.compiling
    resumed = restore(net, chosen.path, chosen.reason)
    assert float(resumed(rows).detach()) == pytest.approx(float(chosen(rows).detach()), rel=1e-3)
