"""Train the question adapter that the package ships: rag/embedding/question_adapter.safetensors.

A low-rank change of all-MiniLM-L6-v2 for questions only: the vectors of passages stay, and every index of them. Questions
come from imagined houses, in the words of their documents and of customers (benchmarks/houses), and from the concierge's
training rows (--sets). The loss is the cross-entropy of the passage that answers under a softmax over all passages of its
house, or over the 60 nearest of the concierge's.

    python scripts/train_question_adapter.py --sets FOLDER --minutes 20 --out rag/embedding/question_adapter.safetensors
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag.embedding.answerability import padded, pair_tokenizer
from rag.embedding.embedder import Embedder
from rag.embedding.low_rank import base_digest
from rag.index import Index
from runners.models.resolve import resolve_model
from scripts.train_answerability import HOUSES, House, find_span, read_rows, stored_name

RANK, ALPHA = 8, 16
OF_HOUSES, OF_CONCIERGE = 40, 8
"""Questions of a batch."""
NEAREST = 60
"""Passages of the concierge that a question is compared with."""
TEMPERATURE = 0.04
LEARNING_RATE = 5e-4
WARM_UP = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, the vectors of the passages it is compared with, [passages, 384], and which of them answer."""

    question: str
    passages: torch.Tensor
    right: tuple[int, ...]


def house_questions(house: House) -> Iterator[Asked]:
    """Yield the answerable questions of a house in every wording."""
    chunks = list(house.index.chunks)
    vectors = torch.from_numpy(np.array(house.index.vectors([chunk.id for chunk in chunks])))
    for row in house.questions:
        right = tuple(
            number
            for number, chunk in enumerate(chunks)
            if chunk.doc == row["doc_id"] and find_span(chunk.text, row["evidence"])
        )
        for form in (row["question"], *row["wordings"]) if right else ():
            yield Asked(question=form, passages=vectors, right=right)


def concierge_questions(folder: Path, embedder: Embedder, work: Path) -> Iterator[Asked]:
    """Yield the questions of the concierge's training rows."""
    Index.build(work / "concierge", folder / "documents.jsonl", embedder)
    index = Index.open(work / "concierge", embedder)
    chunks = list(index.chunks)
    vectors = torch.from_numpy(np.array(index.vectors([chunk.id for chunk in chunks])))
    place = {chunk.doc: number for number, chunk in enumerate(chunks)}
    for row in read_rows(folder / "train.jsonl"):
        if (doc := row["meta"]["doc_id"]) in place:
            yield Asked(question=row["messages"][1]["content"], passages=vectors, right=(place[doc],))


def question_vectors(model: Any, tokenizer: Any, questions: Sequence[str]) -> torch.Tensor:
    """Return the unit vectors of questions, [questions, 384]."""
    ids, mask, _ = padded(tokenizer.encode_batch(list(questions)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask[..., None].float()
    return normalize((hidden.float() * weights).sum(1) / weights.sum(1), dim=-1)


def question_loss(vector: torch.Tensor, asked: Asked) -> torch.Tensor:
    """Return the cross-entropy of the passages that answer."""
    scores = asked.passages @ vector / TEMPERATURE
    right = torch.tensor(asked.right)
    compared = torch.arange(len(scores))
    if len(scores) > NEAREST * 10:
        compared = torch.cat([scores.topk(NEAREST).indices, right]).unique()
    return torch.logsumexp(scores[compared], 0) - torch.logsumexp(scores[right], 0)


def train(
    model: Any, tokenizer: Any, houses: Sequence[Asked], concierge: Sequence[Asked], minutes: float
) -> None:
    """Train for some minutes, with a rate that falls to 0 by then."""
    rng = random.Random(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    begun, step = time.monotonic(), 0
    while (done := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for settings in optimizer.param_groups:
            settings["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
        batch = rng.sample(houses, OF_HOUSES) + rng.sample(concierge, min(OF_CONCIERGE, len(concierge)))
        vectors = question_vectors(model, tokenizer, [asked.question for asked in batch])
        loss = torch.stack([question_loss(*pair) for pair in zip(vectors, batch, strict=True)]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 40 == 0:
            print(f"{step} steps, {time.monotonic() - begun:.0f} s: loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--houses", type=Path, default=HOUSES)
    parser.add_argument("--sets", type=Path, help="Folder of the public sets.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    folder = resolve_model("all-minilm-l6-v2").folder
    embedder = Embedder(folder)
    houses: list[Asked] = []
    concierge: list[Asked] = []
    with tempfile.TemporaryDirectory() as work:
        files = sorted(arguments.houses.glob("*.jsonl"))
        for file in files:
            place = Path(work) / file.stem
            place.mkdir()
            houses += house_questions(House(file, embedder, place))
        if arguments.sets:
            concierge += concierge_questions(arguments.sets / "hybrid_concierge", embedder, Path(work))
    print(f"{len(houses)} questions of {len(files)} houses, {len(concierge)} of the concierge", flush=True)
    bert = AutoModel.from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True, add_pooling_layer=False
    )
    targets = ["query", "key", "value", "dense"]
    model = get_peft_model(bert, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    train(model, pair_tokenizer(folder), houses, concierge, arguments.minutes)
    tensors = {
        stored_name(f"bert.{name}"): value.half().contiguous()
        for name, value in model.state_dict().items()
        if "lora_" in name
    }
    remark = f"{len(files)} houses, {len(houses)} questions, seed 0"
    save_file(
        tensors,
        arguments.out,
        {"base": base_digest(folder), "scale": str(ALPHA / RANK), "trained_on": remark},
    )


if __name__ == "__main__":
    main()
