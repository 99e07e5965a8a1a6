"""What is measured of a family: one training step by each method against plain transformers and PEFT, and the saved weights.

:func:`training_contract` returns a record for each method; :func:`table_row` is the family's row in docs/models.md.
Imports torch, transformers and peft.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from rag.errors import BadInput
from runners.export.gguf import GGUF_FAMILIES
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import EncodedRow
from runners.training import lora
from runners.training.loss import TrainingLoss, choose_loss, evaluation_mode, restore_loss
from runners.training.optimizer import MasterOptimizer
from tests.families import VOCABULARY, Family, build

METHODS = ("full", "lora", "qlora")
TOLERANCE = 1e-5
"""Largest relative difference of the loss, of all gradients as one vector, and of saved weights' logits, in fp32."""
TENSOR_TOLERANCE = 1e-4
"""The same for each tensor's gradient: rounding weighs more in those behind exponentials of sums, as decay rates are."""
SMALL = 1e-2
"""A gradient smaller than this, relative to the largest, is compared as if it were of this size."""
FEW = TrainConfig(rank=4, alpha=8.0, learning_rate=1e-3)


@dataclass(frozen=True)
class TrainingRecord:
    """What training a family by one method gave."""

    method: str
    refused: str = ""
    """The message of a refusal, "" where it trains."""
    path: str = ""
    """The path of the loss that was chosen."""
    reason: str = ""
    """Why not a faster one."""
    note: str = ""
    """Which weights the adapter leaves as they are."""
    loss_error: float = 0.0
    """Relative difference of the loss from plain transformers and PEFT, the largest over the paths compared."""
    gradient_error: float = 0.0
    """Relative difference of all gradients as one vector, the largest over the paths compared."""
    tensor_error: float = 0.0
    """Relative difference of the worst tensor's gradient."""
    worst: str = ""
    """Path and name of that tensor."""
    rounding: float = 0.0
    """The same difference between transformers' own gradients for the rows padded together and one by one."""
    missing: tuple[str, ...] = ()
    """Trained tensors that only one side has."""
    reloaded_error: float = 0.0
    """Relative difference of the logits after saving and loading with transformers and PEFT alone."""


def family_rows(lengths: Sequence[int] = (5, 37, 18, 44), prefix: int = 4) -> list[EncodedRow]:
    """Return rows of very unequal lengths with a common prefix; every token after it but one is a target."""
    draw = random.Random(0)
    first = [draw.randrange(3, VOCABULARY) for _ in range(prefix)]
    rows = []
    for line, length in enumerate(lengths):
        ids = (*first, *(draw.randrange(3, VOCABULARY) for _ in range(length)))
        rows.append(EncodedRow(ids, tuple(range(prefix + 1, len(ids))), line))
    return rows


def save_family(family: Family, folder: Path) -> Model:
    """Write a family's model into a folder and return it as the base of a run."""
    build(family).save_pretrained(folder)
    return Model(
        name=family.name, folder=folder, kind="base", fingerprint="0" * 64, source="path", license="none"
    )


def training_contract(
    family: Family, folder: Path, methods: Sequence[str] = METHODS, every_path: bool = False
) -> list[TrainingRecord]:
    """Return what one step by each method gives, in a folder of the caller's.

    Args:
        family: The family.
        folder: An empty folder for the model and what is trained.
        methods: The methods.
        every_path: Whether all slower paths than the chosen one are compared as well.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = save_family(family, folder / "base")
        return [_trained(base, FEW.replace(method=method), folder / method, every_path) for method in methods]


def forward_as_transformers(model: nn.Module, rows: Sequence[EncodedRow], together: bool) -> Tensor:
    """Return the sum of the target tokens' losses as transformers computes it from labels, in one padded batch or not."""
    batches = [rows] if together else [[row] for row in rows]
    total = torch.zeros(())
    for batch in batches:
        width = max(len(row.ids) for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        labels = torch.full((len(batch), width), -100)
        for line, row in enumerate(batch):
            ids[line, : len(row.ids)] = torch.tensor(row.ids)
            targets = torch.tensor(row.learnt)
            labels[line, targets] = ids[line, targets]
        count = sum(len(row.learnt) for row in batch)
        total = total + count * model(input_ids=ids, labels=labels, use_cache=False).loss
    return total


def _reference(base: Model, config: TrainConfig, ours: nn.Module) -> nn.Module:
    """Return the model as transformers and PEFT alone prepare it, with the adapter's numbers of ours."""
    extra: dict[str, Any] = {}
    if config.method == "qlora":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, **extra)
    if config.method == "full":
        return model.requires_grad_(True)
    assert isinstance(ours, PeftModel)
    chosen = ours.peft_config["default"]
    assert isinstance(chosen, LoraConfig)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=int(config.alpha),
        target_modules="all-linear",
        exclude_modules=chosen.exclude_modules,
        task_type="CAUSAL_LM",
    )
    net = get_peft_model(model.requires_grad_(False), settings)
    adapters = {name: p for name, p in ours.named_parameters() if "lora_" in name}
    missing = [name for name in adapters if name not in dict(net.named_parameters())]
    assert not missing, missing
    net.load_state_dict(adapters, strict=False)
    return net


def _gradients(net: nn.Module, total: Tensor) -> tuple[float, dict[str, Tensor]]:
    """Return a loss and the gradients of all trained tensors by name, and clear them."""
    net.zero_grad()
    total.backward()
    gradients = {
        name: p.grad.clone() for name, p in net.named_parameters() if p.requires_grad and p.grad is not None
    }
    net.zero_grad()
    return float(total.detach()), gradients


def _whole_error(computed: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Return the relative difference of all gradients as one vector."""
    difference = sum(
        float((computed[name] - g).norm()) ** 2 for name, g in reference.items() if name in computed
    )
    return float((difference / sum(float(g.norm()) ** 2 for g in reference.values())) ** 0.5)


def _worst_tensor(computed: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative difference of a tensor's gradient, and the tensor's name."""
    size = max(float(gradient.norm()) for gradient in reference.values())
    return max(
        (float((computed[name] - gradient).norm()) / max(float(gradient.norm()), SMALL * size), name)
        for name, gradient in reference.items()
        if name in computed
    )


def _trained(base: Model, config: TrainConfig, folder: Path, every_path: bool) -> TrainingRecord:
    """Return what one step by one method gives."""
    rows = family_rows()
    torch.manual_seed(7)
    try:
        net = lora.prepare_model(base, config, dtype="float32")
        chosen = choose_loss(net, rows)
    except BadInput as refusal:
        return TrainingRecord(config.method, refused=refusal.message)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in lora.trainable_parameters(net).items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    reference = _reference(base, config, net)
    losses = [chosen]
    if every_path:
        others = {"fast": ("rows", "plain", "alone"), "rows": ("plain", "alone"), "plain": ("alone",)}
        losses += [restore_loss(net, path) for path in others.get(chosen.path, ())]
    with evaluation_mode(net), evaluation_mode(reference), torch.enable_grad():
        together, alone = (
            _gradients(reference, forward_as_transformers(reference, rows, padded))
            for padded in (True, False)
        )
        compared, whole = [], []
        for loss in losses:
            value, computed = _gradients(net, loss(rows))
            value_expected, expected = alone if loss.path in ("fast", "alone") else together
            whole.append(_whole_error(computed, expected))
            loss_error = abs(value - value_expected) / value_expected
            compared.append((_worst_tensor(computed, expected), loss.path, loss_error))
    missing = sorted(
        {name for name, g in expected.items() if g.any()} ^ {n for n, g in computed.items() if g.any()}
    )
    (error, worst), path, _ = max(compared)
    return TrainingRecord(
        config.method,
        path=chosen.path,
        reason=chosen.reason,
        note=lora.adapter_note(net),
        loss_error=max(entry[2] for entry in compared),
        gradient_error=max(whole),
        tensor_error=error,
        rounding=_whole_error(together[1], alone[1]),
        worst=f"{path}: {worst}",
        missing=tuple(missing),
        reloaded_error=_stepped(net, chosen, rows, base, folder),
    )


def _stepped(
    net: nn.Module, loss: TrainingLoss, rows: Sequence[EncodedRow], base: Model, folder: Path
) -> float:
    """Take one step of the run's optimiser, save the weights, and return how far plain PEFT's logits are from ours."""
    parameters = lora.trainable_parameters(net)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    (loss(rows) / sum(len(row.learnt) for row in rows)).backward()
    MasterOptimizer(parameters, FEW.learning_rate, 0.0, 1.0, "adamw").step(1.0)
    net.zero_grad()
    changed = [name for name, p in parameters.items() if not torch.equal(p, before[name])]
    assert changed, "no trained tensor changed"
    ids = torch.tensor([rows[-1].ids])
    with evaluation_mode(net):
        ours = net(input_ids=ids, use_cache=False).logits
    if isinstance(net, PeftModel):
        lora._save_adapter(net, folder, base)
        causal = net.get_base_model()
        assert isinstance(causal, nn.Module)
        extra = {}
        if quantised := getattr(causal.config, "quantization_config", None):
            extra["quantization_config"] = quantised
        plain = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, **extra)
        again: nn.Module = PeftModel.from_pretrained(plain, folder)
    else:
        assert isinstance(net, PreTrainedModel)
        net.save_pretrained(folder)
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with evaluation_mode(again):
        theirs = again(input_ids=ids, use_cache=False).logits
    return float((ours - theirs).norm() / theirs.norm())


def train_cells(records: Sequence[TrainingRecord]) -> tuple[str, str]:
    """Return the table's cells about training: the methods, and the path with its reason."""
    methods = []
    for record in records:
        methods.append(f"{record.method} refused: {record.refused}" if record.refused else record.method)
    trained = [record for record in records if not record.refused]
    paths = list(dict.fromkeys(f"{r.path}{f': {r.reason}' if r.reason else ''}" for r in trained))
    notes = list(dict.fromkeys(record.note for record in trained if record.note))
    return _cell(", ".join(methods)), _cell("; ".join([*paths, *notes]))


def export_cell(family: Family) -> str:
    """Return the table's cell of the export targets that hold the whole model."""
    return "merged, gguf" if family.model_type in {known.name for known in GGUF_FAMILIES} else "merged"


def table_row(family: Family, records: Sequence[TrainingRecord], decode: str) -> str:
    """Return a family's row of docs/models.md; ``decode`` is the cell of decoding."""
    methods, path = train_cells(records)
    return (
        f"| {family.name} | {_cell(family.remarks)} | {methods} | {path} | {decode} | {export_cell(family)} |"
    )


def _cell(text: str) -> str:
    """Return text that fits a cell of a Markdown table."""
    return " ".join(text.replace("|", "/").split())
