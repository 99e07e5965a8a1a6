"""Tune an embedder on labelled texts: contrastively, or whole under a classification head.

Both ways train all weights and save a plain folder of sentence-transformers, whose vectors a linear head then reads.

* ``contrastive``: SetFit's way (Tunstall et al. 2022, 2209.11055) with the supervised contrastive loss (Khosla et al. 2020,
  2004.11362): each text is drawn with another of its label, and all other pairs of the batch are told apart by their labels.
* ``encoder``: cross-entropy of a linear layer over the pooled vector.

A plain loop in place of sentence-transformers' trainer: it needs no further package, knows its time after a few batches,
and reads a batch in groups of texts of similar length, which halves the time of short texts.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

    from rag.embedding.embedder import Embedder

Way = Literal["contrastive", "encoder"]
MAX_TOKENS = 256
"""Tokens of a text that are trained on; the rest is left out, and counted."""
MAX_BATCH_TOKENS = 4_096
"""Tokens of a batch on average: all that its gradients need is in memory at once, .3 MB a token with all-MiniLM-L6-v2 (16
texts of 256 tokens in float32), so 1.3 GB; a model of the base size has four times as many values a token. Longer texts are
trained on in smaller batches."""
GROUP_TEXTS = 16
"""Texts of similar length that are read at once."""
TEMPERATURE = 0.05
"""What cosines are divided by, as sentence-transformers' ranking losses do (their scale of 20)."""
HEAD_FACTOR = 10.0
"""Learning rate of the linear layer, as a multiple of the embedder's."""
WEIGHT_DECAY = 0.01
FIRST_BATCHES = 3
"""Batches that are slower than the others, because memory is taken and kernels are chosen."""
TIMED_BATCHES = 6
"""Batches after which the time of all is estimated."""


class TooSlow(Exception):
    """A tuning that was stopped, because it would take longer than it may."""

    def __init__(self, seconds: float) -> None:
        """Take the seconds that it would take in all."""
        super().__init__(f"{seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTuning:
    """How an embedder is tuned on labels."""

    way: Way
    epochs: int
    learning_rate: float
    """Highest, after a warm-up of a tenth of the batches; it falls to 0 at the end."""
    batch_size: int = 32
    """Texts of a batch; a contrastive batch has as many pairs."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTuningResult:
    """What one tuning did."""

    steps: int
    seconds: float
    cut: int
    """Texts longer than what is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingHead:
    """The linear layer that ``encoder`` begins with: a regression on the vectors before."""

    weights: np.ndarray
    """float32 [labels, dimension]"""
    bias: np.ndarray
    """float32 [labels]"""


def tune_on_labels(
    embedder: Embedder,
    texts: Sequence[str],
    y: np.ndarray,
    settings: LabelTuning,
    out: Path,
    head: StartingHead | None = None,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> LabelTuningResult:
    """Tune an embedder on labelled texts and save it in a folder; the same inputs on the same machine give the same weights.

    Args:
        embedder: the one to start from, whose document prompt is put before the texts; it is not changed.
        texts: the texts.
        y: the number of each one's label.
        settings: of the tuning.
        out: folder of the tuned embedder, written when it is whole; one that is there is replaced.
        head: where ``encoder`` begins, if its weights have as many columns as the embedder's whole vectors.
        seconds: what it may take; after a few batches it is stopped when it would take longer.
        clock: what the seconds are read from.

    Raises:
        TooSlow: it would take longer, or has.
    """
    import torch

    from rag.embedding.folder import EmbedderFolder
    from rag.embedding.library import LibraryEncoder, quiet_loading
    from rag.training.embedder import save_embedder

    started = clock()
    folder = EmbedderFolder(embedder.folder)
    prompt = embedder.prompts.document
    encoded = embedder.tokenizer.encode_batch_fast([prompt + text for text in texts])
    lengths = np.array([len(one.ids) for one in encoded])
    with quiet_loading():
        model = LibraryEncoder(folder, torch.float32, embedder.device, deterministic=False).model
        window = getattr(model, "max_seq_length", None) or math.inf  # of static embeddings there is none
        if MAX_TOKENS < window < math.inf:
            model.max_seq_length = MAX_TOKENS
        read = lengths if window == math.inf else np.minimum(lengths, model.max_seq_length)
        reader = _Reader(model=model, texts=texts, prompt=prompt, lengths=read)
        settings = replace(settings, batch_size=batch_size_for(read, settings))
        timer = _Timer(clock=clock, allowed=seconds, started=started)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            steps = _train(reader, y, settings, head, timer)
        if MAX_TOKENS < window < math.inf:
            model.max_seq_length = window
        save_embedder(model, folder, embedder.prompts, out)
    return LabelTuningResult(
        steps=steps,
        seconds=round(clock() - started, 1),
        cut=int((lengths > read).sum()),
    )


def batch_size_for(lengths: np.ndarray, settings: LabelTuning) -> int:
    """Return the texts of a batch: those of the settings, fewer where texts of these lengths would take too much memory."""
    texts = 2 if settings.way == "contrastive" else 1
    most = int(MAX_BATCH_TOKENS / max(1.0, texts * float(lengths.mean())))
    return min(settings.batch_size, max(2, most))


def label_batches(y: np.ndarray, settings: LabelTuning, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the batches of one epoch: rows in a new order, and for ``contrastive`` another row of each one's label.

    A row that is alone with its label is its own pair, read with another dropout (SimCSE: Gao et al. 2021, 2104.08821).
    """
    draw = random.Random(seed)
    rows_of: dict[int, list[int]] = {}
    for row, label in enumerate(y.tolist()):
        rows_of.setdefault(label, []).append(row)
    order = list(range(len(y)))
    draw.shuffle(order)
    for start in range(0, len(order), settings.batch_size):
        rows = order[start : start + settings.batch_size]
        pairs = []
        if settings.way == "contrastive":
            for row in rows:
                others = [other for other in rows_of[int(y[row])] if other != row]
                pairs.append(draw.choice(others) if others else row)
        yield rows, pairs


@dataclass(slots=True, kw_only=True)
class _Timer:
    """Estimates the time of a training from its first batches, and stops it when that is too long."""

    clock: Callable[[], float]
    allowed: float
    started: float
    counted: float = 0.0
    """When the first batches were over."""
    tokens: int = 0
    """Tokens read since."""

    def after_batch(self, batch: int, tokens: int, left: int) -> None:
        """Take a batch's number from 0, its tokens, and the tokens that are left; raise TooSlow."""
        now = self.clock()
        if batch < FIRST_BATCHES:
            self.counted = now
            return
        self.tokens += tokens
        if batch < TIMED_BATCHES or not self.tokens:
            return
        whole = now - self.started + left * (now - self.counted) / self.tokens
        if (batch == TIMED_BATCHES and whole > self.allowed) or now - self.started > self.allowed:
            raise TooSlow(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """A model of sentence-transformers with the texts that it is trained on."""

    model: Any
    texts: Sequence[str]
    prompt: str
    lengths: np.ndarray
    """Tokens of each that are read."""

    def groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Return positions in ``rows``, in groups of similar length."""
        order = sorted(range(len(rows)), key=lambda n: (self.lengths[rows[n]], rows[n], n))
        return [order[start : start + GROUP_TEXTS] for start in range(0, len(order), GROUP_TEXTS)]

    def tokens(self, rows: Sequence[int]) -> int:
        """Return the tokens that are computed for rows, padding included."""
        lengths = self.lengths[list(rows)]
        return sum(len(group) * int(lengths[group].max()) for group in self.groups(rows))

    def vectors(self, rows: Sequence[int], autocast: bool) -> torch.Tensor:
        """Return the unit vectors of rows, with their gradients."""
        import torch

        device = self.model.device
        groups = self.groups(rows)
        parts = []
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            for group in groups:
                features = self.model.preprocess(
                    [self.texts[rows[n]] for n in group], prompt=self.prompt or None, task="document"
                )
                features = {
                    key: value.to(device) if hasattr(value, "to") else value
                    for key, value in features.items()
                }
                parts.append(self.model(features, task="document")["sentence_embedding"].float())
        place = torch.empty(len(rows), dtype=torch.long)
        place[torch.tensor([n for group in groups for n in group])] = torch.arange(len(rows))
        return torch.nn.functional.normalize(torch.cat(parts)[place.to(device)], dim=1)


def _train(
    reader: _Reader, y: np.ndarray, settings: LabelTuning, head: StartingHead | None, timer: _Timer
) -> int:
    """Train a model in place; return the number of steps."""
    import torch

    from rag.training.trainer import MAX_GRAD_NORM

    model = reader.model
    device = model.device
    layer = _layer(model, int(y.max()) + 1, head) if settings.way == "encoder" else None
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": own, "lr": settings.learning_rate}]
    if layer is not None:
        groups.append({"params": list(layer.parameters()), "lr": settings.learning_rate * HEAD_FACTOR})
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda"))
    batches = [
        batch
        for epoch in range(settings.epochs)
        for batch in label_batches(y, settings, settings.seed * 1_000 + epoch)
    ]
    tokens = [reader.tokens([*rows, *pairs]) for rows, pairs in batches]
    left = sum(tokens)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(len(batches)))
    autocast = _computes_in_bf16(device.type)
    trained = [parameter for group in groups for parameter in group["params"]]
    model.train()
    for number, (rows, pairs) in enumerate(batches):
        vectors = reader.vectors([*rows, *pairs], autocast)
        labels = torch.as_tensor(y[[*rows, *pairs]], device=device)
        loss = (
            contrastive_loss(vectors, labels)
            if layer is None
            else torch.nn.functional.cross_entropy(layer(vectors), labels)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        optimizer.step()
        rate.step()
        left -= tokens[number]
        timer.after_batch(number, tokens[number], left)
    model.eval()
    return len(batches)


def contrastive_loss(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the supervised contrastive loss of unit vectors: each against all others, those of its label being right.

    Args:
        vectors: [texts, dimension].
        labels: the number of each one's label; each text has another of its label.
    """
    import torch

    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -math.inf)
    likely = scores - torch.logsumexp(scores, dim=1, keepdim=True)
    same = (labels[:, None] == labels[None, :]) & ~itself
    return -(likely.masked_fill(~same, 0).sum(dim=1) / same.sum(dim=1).clamp(min=1)).mean()


def _layer(model: Any, labels: int, head: StartingHead | None) -> torch.nn.Linear:
    """Return the linear layer over a model's vectors, with a regression's weights where they fit."""
    import torch

    columns = int(model.get_embedding_dimension())
    layer = torch.nn.Linear(columns, labels)
    with torch.no_grad():
        if head is not None and head.weights.shape == (labels, columns):
            layer.weight.copy_(torch.from_numpy(head.weights))
            layer.bias.copy_(torch.from_numpy(head.bias))
        else:
            layer.weight.zero_()
            layer.bias.zero_()
    return layer.to(model.device)


def _schedule(steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: up over a tenth of them, then down to 0."""
    from rag.training.trainer import WARMUP_SHARE

    def factor(step: int) -> float:
        return min((step + 1) / max(1.0, WARMUP_SHARE * steps), 1.0) * max(0.0, 1 - step / steps)

    return factor


def _computes_in_bf16(device: str) -> bool:
    """Return whether products are computed in bfloat16 there; weights and sums stay in float32."""
    import torch

    from rag.embedding.packed import cpu_supports_bf16

    if device == "cpu":
        return cpu_supports_bf16()
    return device == "cuda" and torch.cuda.is_bf16_supported()
