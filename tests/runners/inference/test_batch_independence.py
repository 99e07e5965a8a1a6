"""Rows of a training batch are independent: no other row changes a loss, and gradients add up, in fp32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.training import lora
from runners.training.loss import restore_loss
from runners.training.packing import collate

PATHS = ("fast", "rows")


@pytest.fixture(scope="module")
def net(tiny: Model) -> nn.Module:
    """The tiny model in fp32 with a LoRA whose B is not zero, and a longer context."""
    return adapted(tiny, "all-linear")


def adapted(tiny: Model, targets: str | tuple[str, ...]) -> nn.Module:
    torch.manual_seed(0)
    net = lora.prepare_model(tiny, TrainConfig(rank=4, alpha=8.0, targets=targets)).float()
    for name, p in lora.trainable_parameters(net).items():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.05)
    net.get_base_model().config.max_position_embeddings = 2048  # type: ignore[operator]
    return net


@pytest.fixture(scope="module")
def shared(tiny: Model, examples: tuple[Example, ...]) -> list[EncodedRow]:
    """Rows that share a prefix, of several lengths."""
    chat = ChatTokenizer(tiny.folder)
    return [chat.example(e) for e in examples[:6]]


@pytest.fixture(scope="module")
def apart(shared: list[EncodedRow]) -> list[EncodedRow]:
    """The same rows without a shared prefix."""
    return [replace(row, ids=(5 + i, *row.ids[1:])) for i, row in enumerate(shared)]


@pytest.fixture(scope="module")
def long(shared: list[EncodedRow]) -> list[EncodedRow]:
    """Rows too long for the eager attention, with targets at their ends."""
    rows = []
    for number, row in enumerate(shared[:3]):
        ids = (row.ids * 20)[: 520 + 90 * number]
        rows.append(EncodedRow(ids, tuple(range(len(ids) - 12, len(ids))), number + 1))
    return rows


@pytest.fixture(params=["shared", "apart", "long"])
def rows(request: pytest.FixtureRequest) -> list[EncodedRow]:
    """Each kind of batch."""
    encoded: list[EncodedRow] = request.getfixturevalue(request.param)
    return encoded


def losses(net: nn.Module, path: str, rows: list[EncodedRow]) -> list[Tensor]:
    """Return the losses of each row's targets, computed together."""
    causal = net.get_base_model()  # type: ignore[operator]
    batch = collate(rows, path == "fast")
    hidden = restore_loss(net, path).hidden(batch)[batch.keep]
    each = F.cross_entropy(causal.get_output_embeddings()(hidden), batch.targets, reduction="none")
    return list(each.split([len(row.learnt) for row in rows]))


def gradients(net: nn.Module, path: str, rows: list[EncodedRow]) -> tuple[float, dict[str, Tensor]]:
    net.zero_grad()
    loss = restore_loss(net, path)(rows)
    loss.backward()
    return float(loss.detach()), {
        n: p.grad.clone() for n, p in lora.trainable_parameters(net).items() if p.grad is not None
    }


def changed_row(row: EncodedRow) -> EncodedRow:
    """Return a row with other tokens from its first target on."""
    ids = tuple(t if i < row.prompt else (t + 7) % 300 for i, t in enumerate(row.ids))
    return replace(row, ids=ids)


@pytest.mark.parametrize("path", PATHS)
def test_changed_row_leaves_other_losses_unchanged(net: nn.Module, rows: list[EncodedRow], path: str) -> None:
    with torch.no_grad():
        before = losses(net, path, rows)
        for changed in range(len(rows)):
            after = losses(net, path, [changed_row(r) if i == changed else r for i, r in enumerate(rows)])
            for i, (a, b) in enumerate(zip(before, after, strict=True)):
                if i == changed:
                    assert (a - b).abs().max() > 0.01
                else:
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_longer_row_leaves_other_losses_unchanged(
    net: nn.Module, shared: list[EncodedRow], path: str
) -> None:
    longer = replace(shared[0], ids=shared[0].ids * 3, learnt=(*shared[0].learnt, len(shared[0].ids) * 3 - 1))
    with torch.no_grad():
        before = losses(net, path, shared[1:])
        after = losses(net, path, [longer, *shared[1:]])[1:]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_batch_loss_and_gradients_are_sums_over_rows(
    net: nn.Module, rows: list[EncodedRow], path: str
) -> None:
    together, computed = gradients(net, path, rows)
    parts = [gradients(net, path, [row]) for row in rows]
    assert together == pytest.approx(sum(loss for loss, _ in parts), rel=1e-5)
    for name, grad in computed.items():
        reference = torch.stack([grads[name] for _, grads in parts]).sum(0)
        torch.testing.assert_close(grad, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max() + 1))


def test_gradients_do_not_depend_on_row_order(net: nn.Module, apart: list[EncodedRow]) -> None:
    _, there = gradients(net, "fast", apart)
    _, back = gradients(net, "fast", apart[::-1])
    for name, grad in there.items():
        torch.testing.assert_close(grad, back[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_no_gradient_is_computed_below_the_first_adapter(
    tiny: Model, shared: list[EncodedRow], path: str
) -> None:
    net = adapted(tiny, ("layers.1.mlp.up_proj",))
    causal = net.get_base_model()  # type: ignore[operator]
    seen: list[bool] = []
    for part in (causal.model.layers[0], causal.model.layers[1].self_attn, causal.model.layers[1]):
        part.register_forward_hook(
            lambda _, __, out: seen.append((out[0] if isinstance(out, tuple) else out).requires_grad)
        )
    _, computed = gradients(net, path, shared)
    assert seen == [False, False, True]
    assert len(computed) == 2
    _, reference = gradients(net, "plain", shared)
    for name, grad in reference.items():
        torch.testing.assert_close(computed[name], grad, rtol=1e-3, atol=1e-5)
