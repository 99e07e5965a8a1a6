"""Measure how fast this machine trains a model of a given shape: steps of two blocks and of the loss, for two seconds.

:func:`measure_training_speed` builds blocks with the widths of the model, attaches what the method trains, and times steps
of rows like the run's own, through the same loss, kernels, optimiser and number of threads as :mod:`runners.training`. The
time of a whole step follows from the number of blocks. No model is needed in the cache. Imports torch inside functions.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runners.plan.train_config import TrainConfig
from runners.resources.calibration import TrainingSpeed
from runners.resources.model_shape import ModelShape
from runners.tokenization.chat_template import EncodedRow

SPEED_SECONDS = 2.0
"""Seconds of measurement for one kind of rows; building the blocks comes on top."""
PROBE_LAYERS = 2
MAX_TABLE = 16_000_000
"""Most weights of the measured head; a larger one's time is in proportion."""
MAX_PASS_FLOPS = 2e11
"""Most operations of one measured forward and backward pass; longer passes are measured on fewer tokens."""
MIN_PASS_TOKENS = 64
FOUR_BIT_SLOWDOWN = 1.15
"""Time of qlora over lora on a CPU: 1,046 against 950 tokens/s of SmolLM2-135M (benchmarks/LOG.md), rounded up."""


@dataclass(frozen=True, slots=True)
class RowsOfRun:
    """The rows that a run trains on, as far as its time depends on them."""

    tokens: float
    """Tokens of a row."""
    prefix: float = 0.0
    """First tokens that all rows share."""
    learnt: float = 0.4
    """Share of the tokens that are targets."""


def measure_training_speed(
    shape: ModelShape, config: TrainConfig, rows: RowsOfRun, seconds: float = SPEED_SECONDS
) -> TrainingSpeed:
    """Time training steps of blocks like the model's on this machine's CPU.

    Args:
        shape: the model.
        config: method, rank, optimiser, kernels and tokens of a step.
        rows: what the rows are like.
        seconds: time of the measurement, without that of building the blocks.
    """
    import torch

    from runners.inference.weights import dtype_for

    dtype = dtype_for()[0]
    probe = _Probe(shape, config, dtype)
    batch = max(1, round(config.batch_tokens / max(1.0, rows.tokens)))
    measured = max(1, min(batch, int(probe.most_tokens / max(1.0, rows.tokens))))
    length = round(min(rows.tokens, max(MIN_PASS_TOKENS, probe.most_tokens)))
    prefix = min(round(rows.prefix), length - 2)

    def rows_of(extra: int) -> list[EncodedRow]:
        return _random_rows(measured, length + extra, prefix, rows.learnt, probe.vocabulary)

    step = probe.step_seconds(rows_of, seconds)
    # A step of more rows than were measured: blocks and head take longer in proportion, the rest does not.
    scale = batch * rows.tokens / (measured * length)
    whole = shape.layers * step.block * scale + step.head * scale * shape.vocab / probe.vocabulary
    whole += step.preparation + step.optimizer * probe.trained_ratio
    if config.method == "qlora":
        whole *= FOUR_BIT_SLOWDOWN
    return TrainingSpeed(
        method=config.method,
        layers=shape.layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        vocab=shape.vocab,
        row_tokens=round(rows.tokens),
        prefix_tokens=round(rows.prefix),
        batch_tokens=config.batch_tokens,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        seconds_per_token=whole / (batch * rows.tokens),
    )


@dataclass(frozen=True, slots=True)
class _StepSeconds:
    """Parts of a step's time: one block, the head with the loss, the optimiser, and kernels made for new shapes."""

    block: float
    head: float
    optimizer: float
    preparation: float


class _Probe:
    """Two blocks with a head, prepared for training as :mod:`runners.training.session` prepares a model."""

    def __init__(self, shape: ModelShape, config: TrainConfig, dtype: Any) -> None:
        """Build the blocks in this dtype; their weights are constants, as speed does not depend on them."""
        import torch
        from peft import get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        from runners.training import lora
        from runners.training.optimizer import MasterOptimizer

        self.vocabulary = max(1024, min(shape.vocab, MAX_TABLE // shape.hidden))
        # A plain MLP has two matrices where a gated one has three.
        width = shape.intermediate if shape.gated else shape.intermediate * 2 // 3
        settings = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=width,
            num_hidden_layers=PROBE_LAYERS,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            tie_word_embeddings=True,
        )
        with torch.device("meta"):
            causal = LlamaForCausalLM(settings).to(dtype)
        causal = causal.to_empty(device="cpu")
        causal.model.rotary_emb = LlamaRotaryEmbedding(settings)
        causal.tie_weights()
        with torch.no_grad():
            for parameter in causal.parameters():
                parameter.fill_(0.01)
        self.full = config.method == "full"
        tuned = config.replace(method="full" if self.full else "lora", variant="lora", init_adapter=None)
        if self.full:
            causal.requires_grad_(True)
            self.net: Any = causal
        else:
            causal.requires_grad_(False)
            tuned = tuned.replace(targets="all-linear")
            with warnings.catch_warnings():
                # PEFT asks transformers for a property that a later version drops; nothing for the user to do.
                warnings.simplefilter("ignore", FutureWarning)
                self.net = get_peft_model(causal, lora.lora_config(causal, tuned))
        self.causal: Any = causal
        trained = lora.trainable_parameters(self.net)
        self.optimizer = MasterOptimizer(trained, 1e-9, 0.0, 1.0, config.optimizer)
        number = shape.params if self.full else shape.adapter(config.rank)
        self.trained_ratio = number / sum(parameter.numel() for parameter in trained.values())
        self.kernels = config.kernels
        blocks = sum(a * b for a, b in shape.matrices()) * PROBE_LAYERS
        passes = 3 if self.full else 2
        self.most_tokens = max(MIN_PASS_TOKENS, int(MAX_PASS_FLOPS / (2 * passes * blocks)))

    def step_seconds(self, rows_of: Callable[[int], list[EncodedRow]], seconds: float) -> _StepSeconds:
        """Time steps on rows of ever new lengths, each twice, for about ``seconds``; at least two lengths.

        ``rows_of`` returns rows that are longer by a number of tokens.
        """
        from runners.training.loss import choose_loss

        loss = choose_loss(self.net, rows_of(0), kernels=self.kernels)
        self.net.train()
        first, again, heads, optimizers = [], [], [], []
        end = time.perf_counter() + seconds
        extra = 0
        while extra < 3 or time.perf_counter() < end:
            rows = rows_of(extra)
            new, optimizer = self._step(loss, rows)
            known, _ = self._step(loss, rows)
            head = self._head(loss, rows)
            if extra:  # the first pass prepares what no later one does
                first.append(new)
                again.append(known)
                heads.append(head)
                optimizers.append(optimizer)
            extra += 1
        head = _mean(heads)
        block = max(0.0, _mean(again) - head) / PROBE_LAYERS
        return _StepSeconds(block, head, _mean(optimizers), max(0.0, _mean(first) - _mean(again)))

    def _step(self, loss: Any, rows: Sequence[EncodedRow]) -> tuple[float, float]:
        """Return the seconds of a forward and backward pass, and of the optimiser."""
        started = time.perf_counter()
        total = loss(rows) / sum(len(row.learnt) for row in rows)
        total.backward()
        passed = time.perf_counter()
        self.optimizer.step(1.0)
        return passed - started, time.perf_counter() - passed

    def _head(self, loss: Any, rows: Sequence[EncodedRow]) -> float:
        """Return the seconds of the head and the loss alone, forward and backward."""
        import torch
        import torch.nn.functional as F

        from runners.training.loss import LinearCrossEntropy

        batch = loss.collate(rows)
        weight = self.causal.get_output_embeddings().weight
        tokens = batch.ids.numel() if loss.path == "plain" else len(batch.targets)
        hidden = torch.full((tokens, weight.shape[1]), 0.1, dtype=weight.dtype, requires_grad=True)
        started = time.perf_counter()
        if loss.path == "plain":
            logits = hidden @ weight.t()
            total = F.cross_entropy(logits[batch.keep].float(), batch.targets, reduction="sum")
        else:
            total = LinearCrossEntropy.apply(hidden, weight, batch.targets)
        total.backward()
        passed = time.perf_counter() - started
        weight.grad = None
        return passed


def _random_rows(number: int, length: int, prefix: int, learnt: float, vocabulary: int) -> list[EncodedRow]:
    """Return rows of random tokens with a common prefix; the last share ``learnt`` of each is the target."""
    generator = random.Random(0)
    common = [generator.randrange(vocabulary) for _ in range(prefix)]
    rows = []
    for line in range(number):
        size = max(2, length - line % 3)
        own = [generator.randrange(vocabulary) for _ in range(size - prefix)]
        # The prefix has no target; so no more than the row's own tokens are learnt.
        targets = max(1, min(round(learnt * size), size - prefix - 1))
        rows.append(EncodedRow(tuple(common + own), tuple(range(size - targets, size)), line + 1))
    return rows


def _mean(values: Sequence[float]) -> float:
    """Return the mean without the largest value, which a pause of the process makes."""
    ordered = sorted(values)
    usual = ordered[:-1] if len(ordered) > 2 else ordered
    return sum(usual) / len(usual)
