"""The reranker: a small cross-encoder is trained, saved, loaded, and used in a search."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from rag.embedding.embedder import Embedder
from rag.embedding.reranker import BATCH_TOKENS, Reranker
from rag.errors import BadInput
from rag.index import Index
from rag.search.query import Query
from tests.rag.conftest import TinyEncoder

THINGS = ["dogs", "bicycles", "cats", "cars", "horses", "children", "prams", "skis"]
FARES = ["three", "seven", "nine"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *THINGS,
    *FARES,
    "what",
    "do",
    "cost",
    "euros",
    "ride",
    "free",
    "on",
    "deck",
    ".",
    "?",
    "are",
    "loud",
]
WINDOW = 40


def question(thing: str) -> str:
    return f"what do {thing} cost ?"


def pairs(rng: random.Random) -> tuple[list[tuple[str, str]], list[float]]:
    """Questions with passages and labels: 1 where the passage is about the right thing and names a fare.

    Some passages have a title before them, as an index adds it; its words are unknown tokens.
    """
    rows, labels = [], []
    for asked in THINGS:
        for thing in THINGS:
            rows.append((question(asked), f"{thing} cost {rng.choice(FARES)} euros ."))
            labels.append(float(asked == thing))
        rows += [
            (question(asked), f"{asked} on deck are loud . {asked} ."),
            (question(asked), misleading_passage(asked)),
        ]
        labels += [0.0, 0.0]
    titled = [(q, f"{rng.choice(['', 'Title. ', 'A title. '])}{passage}") for q, passage in rows]
    return titled, labels


def misleading_passage(thing: str) -> str:
    """A passage with more words of the question than the right one, and no fare."""
    return f"what {thing} do ? {thing} cost cost . {thing} are loud ."


def tokenizer() -> Tokenizer:
    word_level = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()
    word_level.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return word_level


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of 20,000 parameters, trained for some seconds to recognise the right passage."""
    path = tmp_path_factory.mktemp("reranker")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for so small a model
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    config.num_labels = 1
    model, words, rng = BertForSequenceClassification(config), tokenizer(), random.Random(0)
    words.enable_padding()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(500):
        rows, labels = pairs(rng)
        encoded = words.encode_batch(rows)
        logits = model(
            input_ids=torch.tensor([row.ids for row in encoded]),
            token_type_ids=torch.tensor([row.type_ids for row in encoded]),
            attention_mask=torch.tensor([row.attention_mask for row in encoded]),
        ).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    torch.set_num_threads(threads)
    assert loss.item() < 0.1
    model.save_pretrained(path)
    tokenizer().save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def reranker(folder: Path) -> Reranker:
    return Reranker(folder, dtype="float32")


def test_scores_are_the_sigmoid_of_the_logits_where_the_folder_names_no_activation(
    reranker: Reranker, folder: Path
) -> None:
    texts = ["dogs cost three euros .", "cats cost three euros .", "dogs on deck are loud . dogs .", "free"]
    scores = reranker.scores(question("dogs"), texts)
    assert (scores.dtype, scores.shape) == (np.float32, (4,))
    assert int(scores[:3].argmax()) == 0
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    for text, score in zip(texts, scores, strict=True):
        row = tokenizer().encode(question("dogs"), text)
        with torch.inference_mode():
            wanted = model(
                input_ids=torch.tensor([row.ids]), token_type_ids=torch.tensor([row.type_ids])
            ).logits.item()
        assert score == pytest.approx(1 / (1 + math.exp(-wanted)), abs=1e-5)
    assert reranker.activation == "Sigmoid"
    assert reranker.scores("dogs", []).shape == (0,)
    assert reranker.truncated == 0


def test_activation_length_and_prompt_of_the_folder_are_honoured(folder: Path, tmp_path: Path) -> None:
    """Saved by sentence-transformers itself, as ms-marco models are: the logits as they are, pairs of 14 tokens."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), max_length=14, activation_fn=torch.nn.Identity(), device="cpu")
    model[0].processor = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), pad_token="[PAD]", model_max_length=14,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    model.save_pretrained(str(tmp_path / "saved"))
    saved = Reranker(tmp_path / "saved")
    assert (saved.activation, saved.max_tokens) == ("Identity", 14)
    texts = ["dogs cost three euros .", "cats cost three euros .", "dogs on deck are loud . dogs on deck ."]
    wanted = CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(
        [(question("dogs"), text) for text in texts]
    )
    assert np.allclose(saved.scores(question("dogs"), texts), wanted, atol=1e-5)
    assert saved.scores(question("dogs"), texts)[1] < 0, "a logit, not a probability"
    assert saved.truncated == 2
    assert saved.fingerprint != Reranker(folder).fingerprint
    with pytest.raises(BadInput, match="is a CrossEncoder, not an embedder"):
        Embedder(tmp_path / "saved")


def test_scores_do_not_depend_on_order_and_batches(reranker: Reranker) -> None:
    texts = [f"{thing} cost {fare} euros . " * n for thing in THINGS for fare in FARES for n in (1, 2, 3)] * 6
    assert len(texts) * 12 > BATCH_TOKENS
    together = reranker.scores(question("cats"), texts)
    assert np.allclose(reranker.scores(question("cats"), texts[::-1])[::-1], together, atol=1e-4)
    one_by_one = [float(reranker.scores(question("cats"), [text])[0]) for text in texts[:24]]
    assert np.allclose(one_by_one, together[:24], atol=1e-4)


def test_too_long_texts_are_truncated_and_counted(reranker: Reranker) -> None:
    assert reranker.max_tokens == WINDOW
    scores = reranker.scores(question("dogs"), ["dogs cost three euros . " * 30, "dogs cost three euros ."])
    assert np.isfinite(scores).all()
    assert reranker.truncated == 1
    reranker.scores("dogs " * 200, ["cats " * 200])
    assert reranker.truncated == 2


def test_index_search_with_reranker_orders_hits_by_its_scores(
    reranker: Reranker, tmp_path: Path, tiny: TinyEncoder
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for thing in THINGS:
        (folder / f"{thing}-loud.txt").write_text(misleading_passage(thing))
        (folder / f"{thing}-fare.txt").write_text(f"{thing} cost seven euros .")
    Index.build(tmp_path / "index", folder, tiny)
    plain = Index.open(tmp_path / "index", tiny)
    index = Index.open(tmp_path / "index", tiny, reranker)
    misled = correct = 0
    for thing in THINGS:
        wanted = f"{thing}-fare.txt"
        misled += plain.find(question(thing), Query(k=1)).hits[0].chunk.doc != wanted
        results = index.find(question(thing), Query(k=3))
        correct += results.hits[0].chunk.doc == wanted
        scores = [hit.rerank or 0.0 for hit in results.hits]
        assert scores == sorted(scores, reverse=True)
        assert "rerank" in results.timings_ms
        off = index.find(question(thing), Query(k=3, rerank=0))
        assert [h.chunk.doc for h in off.hits] == [
            h.chunk.doc for h in plain.find(question(thing), Query(k=3)).hits
        ]
        assert off.hits[0].rerank is None
    assert misled == len(THINGS), "the planted passages must fool the search without a reranker"
    assert correct == len(THINGS)
    deep = index.find(question("dogs"), Query(k=16, rerank=3)).hits
    assert [hit.rerank is not None for hit in deep] == [True] * 16, "at least k are read"


def test_truncated_passages_are_noted(
    reranker: Reranker, tmp_path: Path, make_tiny: type[TinyEncoder]
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "long.txt").write_text("dogs cost three euros " * 12)
    tiny = make_tiny(max_tokens=200)
    Index.build(tmp_path / "index", folder, tiny)
    results = Index.open(tmp_path / "index", tiny, reranker).find(question("dogs"))
    assert (
        "1 of the passages were longer than the reranker reads, and judged by their beginnings"
        in results.notes
    )


def test_fingerprint_covers_weights_tokenizer_and_window(
    folder: Path, tmp_path: Path, reranker: Reranker
) -> None:
    shutil.copytree(folder, tmp_path / "same")
    assert Reranker(tmp_path / "same").fingerprint == reranker.fingerprint
    assert Reranker(tmp_path / "same", name="ours").name == "ours"
    (tmp_path / "same" / "tokenizer_config.json").write_text('{"model_max_length": 20}')
    shorter = Reranker(tmp_path / "same")
    assert shorter.max_tokens == 20
    assert shorter.fingerprint != reranker.fingerprint


def test_unusable_folders_are_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    def copy(name: str, config: dict[str, object] | None = None) -> Path:
        copied = Path(shutil.copytree(folder, tmp_path / name))
        if config is not None:
            whole = json.loads((copied / "config.json").read_text()) | config
            (copied / "config.json").write_text(json.dumps(whole))
        return copied

    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (copy(f"no {name}") / name).unlink()
        with pytest.raises(BadInput, match=f"has no {name}"):
            Reranker(tmp_path / f"no {name}")
    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"has no model\.safetensors"):
        Reranker(pickled)
    with pytest.raises(BadInput, match="its own code"):
        Reranker(copy("code", {"auto_map": {"AutoModel": "mine.Mine"}}))
    with pytest.raises(BadInput, match="not a cross-encoder"):
        Reranker(copy("embedder", {"architectures": ["BertModel"]}))
    with pytest.raises(BadInput, match="into 3 classes"):
        Reranker(copy("classes", {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    for name in ("config.json", "tokenizer.json"):
        (copy(f"torn {name}") / name).write_text("{")
        with pytest.raises(BadInput, match="is damaged"):
            Reranker(tmp_path / f"torn {name}")


def test_model_without_classification_head_is_refused(tmp_path: Path) -> None:
    """transformers would add a head with random weights, and the scores would be random."""
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadInput, match="BertModel, not a cross-encoder"):
        Reranker(tmp_path)
