"""The loss: fast paths equal the plain loss and gradients in fp32, and the plan of batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rag.errors import CannotRun
from runners.data.examples import Example
from runners.inference.weights import load_base
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.training import cpu_kernels, lora, schedule
from runners.training.loss import (
    LinearCrossEntropy,
    block_rows,
    choose_loss,
    evaluation_mode,
    restore_loss,
)
from runners.training.packing import MAX_SHARED, collate, shared_prefix
from runners.training.runtime import MicroBatchSize


@pytest.fixture(scope="module")
def rows(tiny: Model, examples: tuple[Example, ...]) -> list[EncodedRow]:
    chat = ChatTokenizer(tiny.folder)
    return [chat.example(e) for e in examples[:5]]


@pytest.fixture
def net(tiny: Model) -> nn.Module:
    """The tiny model in fp32 with a LoRA whose B is not zero."""
    torch.manual_seed(0)
    adapted = lora.prepare_model(tiny, TrainConfig(rank=4, alpha=8.0)).float()
    for name, p in lora.trainable_parameters(adapted).items():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.05)
    return adapted


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    """Return a copy of a trained parameter's gradient."""
    assert parameter.grad is not None
    return parameter.grad.clone()


def gradients(net: nn.Module, path: str, rows: list[EncodedRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss by one path, and the gradients of all trained parameters."""
    net.zero_grad()
    loss = restore_loss(net, path)(rows)
    loss.backward()
    return float(loss.detach()), {name: gradient_of(p) for name, p in lora.trainable_parameters(net).items()}


@pytest.mark.parametrize("path", ["fast", "rows"])
def test_fast_and_rows_paths_equal_plain_loss_and_gradients(
    net: nn.Module, rows: list[EncodedRow], path: str
) -> None:
    expected, reference = gradients(net, "plain", rows)
    loss, computed = gradients(net, path, rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, grad in reference.items():
        torch.testing.assert_close(computed[name], grad, rtol=1e-3, atol=1e-5)


def test_long_rows_equal_plain_loss_without_shared_prefix(
    net: nn.Module, rows: list[EncodedRow], tiny: Model
) -> None:
    ids = tuple((rows[0].ids * 20)[: cpu_kernels.MAX_EAGER_TOKENS - 100])
    long = [EncodedRow(ids[n:] + row.ids * 2, tuple(range(500, 510)), 1) for n, row in enumerate(rows[:2])]
    assert collate(long, packed=True).segments.prefix == 0
    net.get_base_model().config.max_position_embeddings = 1024  # type: ignore[operator]
    expected, _ = gradients(net, "plain", long)
    assert gradients(net, "fast", long)[0] == pytest.approx(expected, rel=1e-5)


def test_long_rows_that_are_mostly_prefix_share_it(net: nn.Module, rows: list[EncodedRow]) -> None:
    """Instructions that list 77 labels, then a short message: longer than rows that share otherwise."""
    prefix = (rows[0].ids * 20)[: MAX_SHARED + 40]
    long = [
        EncodedRow(prefix + row.ids, tuple(len(prefix) + index for index in row.learnt), n)
        for n, row in enumerate(rows[:3])
    ]
    net.get_base_model().config.max_position_embeddings = 1024  # type: ignore[operator]
    assert collate(long, packed=True).segments.prefix >= len(prefix)
    expected, reference = gradients(net, "plain", long)
    loss, computed = gradients(net, "fast", long)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, grad in reference.items():
        torch.testing.assert_close(computed[name], grad, rtol=1e-3, atol=1e-5)


def test_micro_batch_counts_shared_prefix_once(rows: list[EncodedRow]) -> None:
    longest = max(len(row.ids) for row in rows)
    prefix = shared_prefix(rows)
    most = prefix + len(rows) * (longest - prefix)
    assert len(rows) * longest > most
    for count, sharing in ((1, shared_prefix), (2, lambda _: 0)):
        seen: list[int] = []

        def part(micro: list[EncodedRow], seen: list[int] = seen) -> float:
            seen.append(len(micro))
            return 0.0

        MicroBatchSize([(0, most)], sharing).total(rows, 0, part, lambda _: None)
        assert (len(seen), sum(seen)) == (count, len(rows))


def test_fast_path_trains_tied_head_of_full_model(tiny: Model, rows: list[EncodedRow]) -> None:
    net = lora.prepare_model(tiny, TrainConfig(method="full")).float()
    _, reference = gradients(net, "plain", rows)
    _, computed = gradients(net, "fast", rows)
    assert "model.embed_tokens.weight" in reference
    for name, grad in reference.items():
        torch.testing.assert_close(computed[name], grad, rtol=1e-3, atol=1e-5)


def test_batch_loss_is_sum_of_row_losses(net: nn.Module, rows: list[EncodedRow]) -> None:
    together = gradients(net, "fast", rows)[0]
    alone = sum(gradients(net, "fast", [row])[0] for row in rows)
    assert together == pytest.approx(alone, rel=1e-5)


def test_shared_prefix_ends_before_first_target(rows: list[EncodedRow]) -> None:
    batch = collate(rows, packed=True)
    prefix = batch.segments.prefix
    assert prefix > 10
    assert batch.segments.rows == len(rows)
    assert len(batch.keep) == sum(len(row.learnt) for row in rows)
    assert int(batch.keep.min()) >= prefix
    twins = collate([rows[0], replace(rows[0], line=2)], packed=True)
    assert twins.segments.prefix == rows[0].prompt - 1


def test_packed_batch_has_no_padding(rows: list[EncodedRow]) -> None:
    batch = collate(rows, packed=True)
    prefix = batch.segments.prefix
    assert batch.ids.numel() == prefix + sum(row.learnt[-1] - prefix for row in rows)


def test_linear_cross_entropy_equals_torch_over_several_blocks() -> None:
    torch.manual_seed(0)
    vocabulary = 100_000
    n = block_rows(vocabulary, torch.device("cpu")) * 2 + 3
    hidden, head = torch.randn(n, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
    targets = torch.randint(0, vocabulary, (n,))
    expected = F.cross_entropy(hidden @ head.t(), targets, reduction="sum")
    reference = torch.autograd.grad(expected * 0.5, (hidden, head))
    loss = LinearCrossEntropy.apply(hidden, head, targets)
    computed = torch.autograd.grad(loss * 0.5, (hidden, head))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(computed, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_fast_path_is_chosen_and_leaves_model_unchanged(net: nn.Module, rows: list[EncodedRow]) -> None:
    before = net.get_base_model().config._attn_implementation  # type: ignore[operator]
    chosen = choose_loss(net, rows[:2])
    assert (chosen.path, chosen.reason) == ("fast", "")
    chosen(rows)
    assert net.get_base_model().config._attn_implementation == before  # type: ignore[operator]
    assert not any("forward" in vars(m) for m in net.modules())


def test_path_that_disagrees_with_plain_loss_is_not_chosen(tiny: Model, rows: list[EncodedRow]) -> None:
    class Shifted(nn.Linear):
        """A head whose output is not the product with its weight alone."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 3

    model = load_base(tiny, "float32")
    head = Shifted(32, model.config.vocab_size, bias=False)
    head.weight = nn.Parameter(torch.randn_like(head.weight))
    model.set_output_embeddings(head)
    chosen = choose_loss(model, rows[:2])
    assert chosen.path == "plain"
    assert "where the model's own logits give" in chosen.reason


def test_evaluation_mode_keeps_four_bit_layers_in_training_mode() -> None:
    class Linear4bit(nn.Module):
        """Replaces bitsandbytes' layer of this name: only the name and the flag matter."""

    net = nn.Sequential(nn.Dropout(), Linear4bit())
    with evaluation_mode(net):
        assert [m.training for m in net] == [False, True]
        assert not torch.is_grad_enabled()
    assert net.training


@pytest.mark.parametrize("epochs", [1.0, 2.5])
def test_every_pass_has_every_row_once(epochs: float) -> None:
    lengths = [10 + i % 7 for i in range(50)]
    passes = schedule.plan_steps(lengths, 100, epochs, seed=3)
    assert passes == schedule.plan_steps(lengths, 100, epochs, seed=3)
    assert passes != schedule.plan_steps(lengths, 100, epochs, seed=4)
    assert sorted(i for step in passes[0] for i in step) == list(range(50))
    assert all(sum(lengths[i] for i in step) <= 120 for step in passes[0])
    assert len(passes) == 3 if epochs > 1 else 1
    if epochs > 1:
        assert len(passes[2]) == round(0.5 * len(passes[0]))


def test_micro_batches_limit_padded_tokens() -> None:
    micros = schedule.micro_batches(range(6), [10, 50, 12, 48, 11, 90], most=100)
    assert micros == [[0, 4, 2], [3, 1], [5]]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_learning_rate_warms_up_then_follows_schedule(name: str) -> None:
    rates = [schedule.learning_rate_factor(s, 100, name, 0.1) for s in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[99] == 1.0 if name == "constant" else rates[99] < 0.02


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1099511627776 bytes."
        ),
    ],
)
def test_memory_that_runs_out_while_paths_are_compared_is_said(
    tiny: Model, rows: list[EncodedRow], error: RuntimeError
) -> None:
    """It is no difference between the paths, and no traceback."""
    net = load_base(tiny, "float32")
    [*net.get_submodule("model.layers").children()][-1].register_forward_hook(lambda *_: raise_(error))
    with pytest.raises(CannotRun, match="not enough memory to compare") as problem:
        choose_loss(net, rows[:3])
    assert "--kernels plain" in problem.value.hint


def raise_(error: Exception) -> None:
    raise error
