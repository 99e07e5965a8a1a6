"""Train the answerability model that the package ships: rag/embedding/answerability.safetensors.

Questions come from imagined houses, each with questions in the words of its documents and in those of customers
(benchmarks/houses, written for this), and from public sets with gold passages (--sets: a folder with xquad_en, qed_reading,
clapnq_dev and hybrid_concierge). Every question is a group: the passage that answers it and near ones that do not, or only
the latter where nothing answers it; and again its evidence among other sentences of the same passages. The loss is the
binary cross-entropy of every pair, a softmax over each group, and the binary cross-entropy of the tokens for evidence.

    python scripts/train_answerability.py --sets FOLDER --minutes 60 --out rag/embedding/answerability.safetensors
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from rag.embedding.answerability import AnswerabilityNetwork, padded, pair_tokenizer
from rag.embedding.embedder import Embedder
from rag.embedding.low_rank import base_digest
from rag.embedding.packed import Bert
from rag.index import Index
from rag.indexing.chunking import Chunker
from rag.search.query import Query
from rag.types import Chunk
from runners.models.resolve import resolve_model

HOUSES = Path(__file__).parents[1] / "benchmarks" / "houses"
RANK, ALPHA = 16, 32
GROUPS_PER_BATCH = 8
LEARNING_RATE = 7e-4
WARM_UP = 100
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z£$0-9\"'(])|\n+")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that answers the question of its group, or does not."""

    text: str
    answers: bool = False
    evidence: tuple[Span, ...] = ()
    """Character spans of the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A question with texts of which one answers it, or none."""

    question: str
    texts: tuple[Text, ...] = field(default=())


class House:
    """Documents with questions, indexed; read from a file of rows."""

    def __init__(self, file: Path, embedder: Embedder, folder: Path) -> None:
        """Index the documents of the file in a folder."""
        rows = read_rows(file)
        self.questions = [row for row in rows if "question" in row]
        documents = folder / "documents.jsonl"
        documents.write_text("".join(json.dumps(row) + "\n" for row in rows if "text" in row), "utf-8")
        Index.build(folder / "index", documents, embedder)
        self.index = Index.open(folder / "index", embedder)
        self.text = Chunker(embedder, self.index.settings).embedded_text

    def groups(self, rng: random.Random) -> Iterator[Group]:
        """Yield the groups of every question in every wording."""
        asked = [(form, row) for row in self.questions for form in (row["question"], *row["wordings"])]
        results = self.index.find_many([form for form, _ in asked], Query(k=50))
        chunks = self.index.chunks
        for (form, row), result in zip(asked, results, strict=True):
            hits = [hit.chunk for hit in result.hits]
            if row["answerable"]:
                own = [chunk for chunk in chunks if chunk.doc == row["doc_id"]]
                yield from self._answered(form, row["evidence"], own, hits, rng)
            else:
                yield Group(question=form, texts=tuple(Text(self.text(chunk)) for chunk in hits[:4]))
                others = [s for chunk in hits[:3] for s in self._sentences(chunk)]
                yield Group(question=form, texts=tuple(map(Text, rng.sample(others, min(2, len(others))))))

    def _answered(
        self, form: str, evidence: str, own: Sequence[Chunk], hits: Sequence[Chunk], rng: random.Random
    ) -> Iterator[Group]:
        wanted = set(evidence.lower().split())
        gold = [chunk for chunk in own if find_span(chunk.text, evidence)]
        gold = gold or [max(own, key=lambda chunk: len(wanted & set(chunk.text.lower().split())))]
        best, text = gold[0], self.text(gold[0])
        span = find_span(text, evidence)
        others = [chunk for chunk in hits if chunk not in gold]
        near = others[:4] + rng.sample(others[4:25], min(3, len(others[4:25])))
        wrong = [Text(self.text(chunk)) for chunk in rng.sample(near, min(3, len(near)))]
        yield Group(question=form, texts=(Text(text, True, (span,) if span else ()), *wrong))
        title = text[: len(text) - len(best.text)]
        sentences = [
            sentence
            for chunk in (best, *(c for c in own if c not in gold), *(c for c in hits[:3] if c not in gold))
            for sentence in self._sentences(chunk)
            if not overlaps(sentence, evidence)
        ]
        right = Text(title + evidence, True, ((len(title), len(title) + len(evidence)),))
        chosen = rng.sample(sentences, min(2, len(sentences)))
        yield Group(question=form, texts=(right, *map(Text, chosen)))

    def _sentences(self, chunk: Chunk) -> list[str]:
        prefix = self.text(chunk)[: -len(chunk.text)]
        return [prefix + chunk.text[start:end] for start, end in sentences(chunk.text)]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]


def find_span(text: str, part: str) -> Span | None:
    """Return where a part stands in a text, whatever its spaces; None where it does not."""
    match = re.search(r"\s+".join(map(re.escape, part.split())), text)
    return match.span() if match else None


def sentences(text: str) -> list[Span]:
    """Return the spans of sentences and table rows of three words and more, headings left out."""
    ends = [match.span() for match in _SENTENCE_END.finditer(text)]
    spans = zip([0, *(end for _, end in ends)], [*(start for start, _ in ends), len(text)], strict=True)
    return [
        (a, b)
        for a, b in spans
        if len(text[a:b].split()) > 2 and not text[a:b].startswith(("#", "| --", "|--"))
    ]


def overlaps(sentence: str, evidence: str) -> bool:
    """Return whether a sentence contains the evidence or is a part of it."""
    one, other = (" ".join(text.split()) for text in (sentence, evidence))
    return other in one or one.rpartition(". ")[2] in other


def public_groups(sets: Path, embedder: Embedder, rng: random.Random, work: Path) -> Iterator[Group]:
    """Yield groups of the public sets: sentences of paragraphs, answers of a FAQ, and found passages."""
    texts = {row["id"]: row["text"] for row in read_rows(sets / "xquad_en" / "documents.jsonl")}
    for row in read_rows(sets / "xquad_en" / "questions.jsonl"):
        yield from sentence_groups(row["question"], texts[row["doc_id"]], row["start"], rng)
    for name in ("train", "questions"):
        for row in read_rows(sets / "qed_reading" / f"{name}.jsonl"):
            paragraph, question = row["messages"][1]["content"].rsplit("\n\nQuestion: ", 1)
            start = paragraph.find(row["messages"][2]["content"])
            if start >= 0:
                yield from sentence_groups(question, paragraph, start, rng)
    yield from faq_groups(sets / "hybrid_concierge", rng)
    yield from found_groups(sets / "clapnq_dev", embedder, work)


def sentence_groups(question: str, paragraph: str, start: int, rng: random.Random) -> Iterator[Group]:
    """Yield the sentence of a paragraph in which an answer starts among its others, and sometimes the paragraph."""
    spans = sentences(paragraph)
    gold = [span for span in spans if span[0] <= start < span[1]]
    others = [paragraph[a:b] for a, b in spans if (a, b) not in gold]
    if not gold or not others:
        return
    sentence = paragraph[gold[0][0] : gold[0][1]]
    right = Text(sentence, True, ((0, len(sentence)),))
    yield Group(question=question, texts=(right, *map(Text, rng.sample(others, min(3, len(others))))))
    if rng.random() < 0.1:
        yield Group(question=question, texts=(Text(paragraph, True, tuple(gold)),))


def faq_groups(folder: Path, rng: random.Random) -> Iterator[Group]:
    """Yield the fact that answers a question of the concierge's training rows among others of the same place."""
    facts: dict[str, dict[str, str]] = {}
    for row in read_rows(folder / "documents.jsonl"):
        facts.setdefault(row["id"].rpartition("/")[0], {})[row["id"]] = f"{row['title']}. {row['text']}"
    for row in read_rows(folder / "train.jsonl"):
        doc = row["meta"]["doc_id"]
        place = facts.get(doc.rpartition("/")[0], {})
        if doc in place:
            others = [text for name, text in place.items() if name != doc]
            wrong = rng.sample(others, min(5, len(others)))
            right = Text(place[doc], True, ((0, len(place[doc])),))
            yield Group(question=row["messages"][1]["content"], texts=(right, *map(Text, wrong)))


def found_groups(folder: Path, embedder: Embedder, work: Path) -> Iterator[Group]:
    """Yield two fifths of the questions of clapnq_dev with the passages that a search finds; half have no answer."""
    Index.build(work / "clapnq", folder / "documents.jsonl", embedder)
    index = Index.open(work / "clapnq", embedder)
    text = Chunker(embedder, index.settings).embedded_text
    raw = {row["id"]: row["text"] for row in read_rows(folder / "documents.jsonl")}
    rows = [row for number, row in enumerate(read_rows(folder / "questions.jsonl")) if number % 5 < 2]
    for row, result in zip(
        rows, index.find_many([row["question"] for row in rows], Query(k=12)), strict=True
    ):
        hits = [hit.chunk for hit in result.hits if hit.chunk.doc != row.get("doc_id")][:4]
        wrong = [Text(text(chunk)) for chunk in hits]
        if not row["answerable"]:
            yield Group(question=row["question"], texts=tuple(wrong))
            continue
        quotes = [raw[row["doc_id"]][span["start"] : span["end"]] for span in row.get("spans", ())]
        for chunk in index.backend.chunks_of(row["doc_id"]):
            spans = [span for quote in quotes if (span := find_span(text(chunk), quote))]
            if spans:
                yield Group(question=row["question"], texts=(Text(text(chunk), True, tuple(spans)), *wrong))
                break


def batches(groups: Sequence[Group], rng: random.Random) -> Iterator[list[Group]]:
    """Yield batches of groups without end, those of similar length together, in a new order every time."""
    while True:
        order = rng.sample(range(len(groups)), len(groups))
        for start in range(0, len(order), 200):
            part = sorted(order[start : start + 200], key=lambda n: max(len(t.text) for t in groups[n].texts))
            cut = [part[n : n + GROUPS_PER_BATCH] for n in range(0, len(part), GROUPS_PER_BATCH)]
            for numbers in rng.sample(cut, len(cut)):
                yield [groups[n] for n in numbers]


def batch_loss(network: AnswerabilityNetwork, tokenizer: Any, batch: Sequence[Group]) -> torch.Tensor:
    """Return the loss of a batch: of pairs, of groups and of tokens."""
    rows = [(number, group.question, text) for number, group in enumerate(batch) for text in group.texts]
    encodings = tokenizer.encode_batch([(question, text.text) for _, question, text in rows])
    ids, mask, types = padded(encodings)
    evidence = torch.zeros(ids.shape)
    for row, (encoding, (_, _, text)) in enumerate(zip(encodings, rows, strict=True)):
        for token, (start, end) in enumerate(encoding.offsets):
            inside = encoding.type_ids[token] and any(start < b and end > a for a, b in text.evidence)
            evidence[row, token] = float(bool(inside))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, tokens = network(ids, mask, types)
    answers = torch.tensor([float(text.answers) for _, _, text in rows])
    loss = binary_cross_entropy_with_logits(scores.float(), answers, weight=1 + answers)
    loss = loss + binary_cross_entropy_with_logits(tokens.float()[types > 0], evidence[types > 0])
    number = torch.tensor([row for row, _, _ in rows])
    parts = [
        -torch.log_softmax(scores[number == n].float(), 0)[answers[number == n] > 0].mean()
        for n, group in enumerate(batch)
        if any(text.answers for text in group.texts)
    ]
    return loss + torch.stack(parts).mean() if parts else loss


def train(groups: Sequence[Group], folder: Path, arguments: argparse.Namespace) -> AnswerabilityNetwork:
    """Train for the given epochs, or until the minutes are over, with a rate that falls to 0 by then."""
    torch.manual_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    bert: Any = Bert.load(folder, torch.float32)
    targets = ["query", "key", "value", "dense"]
    wrapped: Any = get_peft_model(bert, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    network = AnswerabilityNetwork(wrapped, bert.hidden_size)
    if arguments.start:
        load_start(network, arguments.start)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    tokenizer = pair_tokenizer(folder)
    total = math.ceil(arguments.epochs * len(groups) / GROUPS_PER_BATCH)
    begun = time.monotonic()
    losses: list[float] = []
    for step, batch in enumerate(batches(groups, rng)):
        done = max(step / total, (time.monotonic() - begun) / (60 * arguments.minutes))
        if done >= 1:
            break
        rate = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
        for settings in optimizer.param_groups:
            settings["lr"] = rate
        loss = batch_loss(network, tokenizer, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 400 == 399:
            save(network, folder, arguments.out, f"{len(groups)} groups, {step + 1} steps, unfinished")
        if step % 50 == 49:
            print(
                f"{step + 1} of {total}, {time.monotonic() - begun:.0f} s: loss {np.mean(losses[-50:]):.3f}",
                flush=True,
            )
    return network


def load_start(network: AnswerabilityNetwork, file: Path) -> None:
    """Set the low-rank changes and the heads to those of a file that :func:`save` wrote."""
    stored = {name: value.float() for name, value in load_file(file).items()}
    state = network.state_dict()
    for name in state:
        if (key := stored_name(name)) in stored:
            state[name] = stored[key]
    network.load_state_dict(state)


def stored_name(name: str) -> str:
    """Return the name in the saved file of a parameter of the network; "" for one that is not saved."""
    if "lora_" in name:
        layer, _, rest = name.removeprefix("bert.base_model.model.").partition(".lora_")
        return f"{layer}.lora_{rest[0]}"
    return name if name.startswith(("pair.", "evidence.")) else ""


def save(network: AnswerabilityNetwork, folder: Path, out: Path, remark: str) -> None:
    """Write the low-rank changes and the heads in 16 bits."""
    tensors = {
        key: value.half().contiguous()
        for name, value in network.state_dict().items()
        if (key := stored_name(name))
    }
    metadata = {"base": base_digest(folder), "scale": str(ALPHA / RANK), "trained_on": remark}
    save_file(tensors, out, metadata)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--houses", type=Path, default=HOUSES)
    parser.add_argument("--without", default="", help="Houses left out, separated by commas.")
    parser.add_argument("--sets", type=Path, help="Folder of the public sets.")
    parser.add_argument("--start", type=Path, help="Weights to begin with, as this script writes them.")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    folder = resolve_model("all-minilm-l6-v2").folder
    embedder = Embedder(folder)
    rng = random.Random(arguments.seed)
    left_out = set(arguments.without.split(","))
    groups: list[Group] = []
    files = [file for file in sorted(arguments.houses.glob("*.jsonl")) if file.stem not in left_out]
    with tempfile.TemporaryDirectory() as work:
        for file in files:
            house = Path(work) / file.stem
            house.mkdir()
            groups += House(file, embedder, house).groups(rng)
        of_houses = len(groups)
        if arguments.sets:
            groups += public_groups(arguments.sets, embedder, rng, Path(work))
    print(f"{of_houses} groups of {len(files)} houses, {len(groups) - of_houses} of public sets", flush=True)
    network = train(groups, folder, arguments)
    save(network, folder, arguments.out, f"{len(files)} houses, {len(groups)} groups, seed {arguments.seed}")


if __name__ == "__main__":
    main()
