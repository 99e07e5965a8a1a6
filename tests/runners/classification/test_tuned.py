"""An embedder is tuned where the first candidates leave room, judged on one split, stored whole and loaded the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from rag.errors import BadInput
from rag.training.labels import LabelTuning, TooSlow, batch_size_for, label_batches, tune_on_labels
from runners.classification.files import EMBEDDER, WEIGHTS, read_classifier, read_facts, save_classifier
from runners.classification.linear_head import HeldOutScores
from runners.classification.selection import FeatureKind, LabelledRows, TextClassifier, choose_classifier
from runners.classification.tuned import MIN_STANDARD_ERRORS, gain_on_split, one_split, with_tuned_embedder
from tests.support import synonyms

SHORT = LabelTuning(way="contrastive", epochs=2, learning_rate=1e-2)
FAST: Mapping[FeatureKind, LabelTuning] = {
    "contrastive": replace(SHORT, epochs=1),
    "encoder": LabelTuning(way="encoder", epochs=30, learning_rate=5e-3),
}


def mixed_rows(count: int) -> tuple[list[str], list[str]]:
    """Return texts whose label is told by two words together, and by none alone nor by two neighbours."""
    draw = random.Random(0)
    fillers = [word for word in synonyms.TEMPLATE_WORDS if word.isalpha()]
    texts, labels = [], []
    for _ in range(count):
        first, second = draw.randrange(2), draw.randrange(2)
        between = [draw.choice(fillers) for _ in range(2)]
        words = [synonyms.GOODS[first], *between, synonyms.PIERS[second], draw.choice(synonyms.NUMBERS)]
        texts.append(" ".join(words))
        labels.append("same" if first == second else "other")
    return texts, labels


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(synonyms.embedder(tmp_path_factory.mktemp("plain") / "embedder"), device="cpu")


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """An embedder of another family, which sentence-transformers runs."""
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    folder = tmp_path_factory.mktemp("distilbert") / "embedder"
    folder.mkdir()
    synonyms.tokenizer().save(str(folder / "tokenizer.json"))
    config = DistilBertConfig(vocab_size=len(synonyms.words()), dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    torch.manual_seed(0)
    DistilBertModel(config).save_pretrained(folder)
    return Embedder(folder, device="cpu")


@pytest.fixture(scope="module")
def rows(embedder: Embedder) -> LabelledRows:
    return LabelledRows.of(*mixed_rows(240), embedder)


@pytest.fixture(scope="module")
def first(rows: LabelledRows) -> TextClassifier:
    return choose_classifier(rows)


def no_embedder() -> Any:
    """Stand for the plan's embedder where it must not be loaded."""
    raise AssertionError("the plan's embedder is not needed")


def test_tuned_encoder_wins_is_stored_without_pickle_and_answers_the_same(
    first: TextClassifier, rows: LabelledRows, embedder: Embedder, tmp_path: Path
) -> None:
    made = with_tuned_embedder(first, rows, embedder, tmp_path / "work", ways=FAST)
    assert (made.features, made.is_tuned, made.untried) == ("encoder", True, ())
    assert [one.features for one in made.tried] == ["embeddings", "tfidf", "both", "contrastive", "encoder"]
    split = made.tried[-1]
    assert made.split_rows == split.split_rows == 60
    assert made.head.accuracy == split.accuracy > (split.first_accuracy or 0) + 0.15
    assert made.tried[-2].first_accuracy == split.first_accuracy, "judged on the same rows"
    assert "the best before" in split.text
    assert "one split of 60 rows" in split.text
    assert made.head.temperature
    assert made.embedder

    vectors = Embedder(made.embedder, device="cpu").encode(rows.texts)
    before = made.head.probabilities(made.scores(rows.texts, vectors))
    folder = tmp_path / "stored"
    save_classifier(made, folder, embedder.fingerprint, {})
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".txt"}
    loaded, own = read_classifier(folder, no_embedder)
    assert own
    assert own.fingerprint == read_facts(folder)["embedder"] != embedder.fingerprint
    after = loaded.head.probabilities(loaded.scores(rows.texts, own.encode(rows.texts)))
    assert np.array_equal(before, after)
    assert (loaded.tried, loaded.features) == (made.tried, "encoder")
    weights = next((folder / EMBEDDER).rglob(WEIGHTS.replace("head", "model")))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(BadInput, match="damaged"):
        read_classifier(folder, no_embedder)


def spread(embedder: Any, rows: LabelledRows) -> float:
    """Return by how much texts of one label are nearer to each other than to the others, as a mean of cosines."""
    vectors = embedder.encode(rows.texts)
    near = vectors @ vectors.T
    same = rows.y[:, None] == rows.y[None, :]
    return float(near[same].mean() - near[~same].mean())


@pytest.mark.parametrize("way", ["contrastive", "encoder"])
@pytest.mark.parametrize("family", ["embedder", "distilbert"])
def test_same_rows_give_the_same_weights(
    way: Any, family: str, request: pytest.FixtureRequest, rows: LabelledRows, tmp_path: Path
) -> None:
    plain = request.getfixturevalue(family)
    y = np.array(["apples" in text for text in rows.texts], int)
    settings = replace(SHORT, way=way)
    results = [tune_on_labels(plain, rows.texts, y, settings, tmp_path / name) for name in ("one", "two")]
    assert results[0].steps == results[1].steps == 2 * 8
    one, two = (Embedder(tmp_path / name, device="cpu") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint != plain.fingerprint
    labelled = replace(rows, y=y)
    assert spread(one, labelled) > spread(plain, labelled) + 0.2
    other = tune_on_labels(plain, rows.texts, y, replace(settings, seed=1), tmp_path / "other")
    assert other.cut == 0
    assert Embedder(tmp_path / "other", device="cpu").fingerprint != one.fingerprint


def test_tuning_that_takes_too_long_is_left_out_and_said(
    first: TextClassifier, rows: LabelledRows, embedder: Embedder, tmp_path: Path
) -> None:
    made = with_tuned_embedder(first, rows, embedder, tmp_path / "work", seconds=0)
    assert made.features == first.features
    assert made.tried == first.tried
    assert len(made.untried) == 2
    assert made.untried[0].startswith("embedder tuned contrastively: left out, it would take ")
    assert not (tmp_path / "work").exists()
    ticks = iter(range(10_000))
    with pytest.raises(TooSlow) as slow:
        tune_on_labels(
            embedder,
            rows.texts,
            rows.y,
            SHORT,
            tmp_path / "out",
            seconds=10,
            clock=lambda: float(next(ticks)),
        )
    # The clock says 1 s a batch: 16 batches and what comes before. It is told after seven.
    assert slow.value.seconds == pytest.approx(16, abs=2)
    assert next(ticks) < 12
    assert not (tmp_path / "out").exists()


def test_faulty_rows_are_tuned_on_all_the_same(embedder: Embedder, tmp_path: Path) -> None:
    """A label with one row, a text with two labels, repeats and a reply that lists labels: each row stays, none stops it."""
    texts, labels = mixed_rows(100)
    more = [(texts[0], "same"), (texts[0], "other"), ("lone", "lonely"), (texts[1], "same, other")]
    rows = LabelledRows.of([*texts, *(t for t, _ in more)], [*labels, *(one for _, one in more)], embedder)
    events: list[dict[str, Any]] = []
    ways: Mapping[FeatureKind, LabelTuning] = {kind: replace(one, epochs=1) for kind, one in FAST.items()}
    made = with_tuned_embedder(
        choose_classifier(rows), rows, embedder, tmp_path, ways=ways, on_event=events.append
    )
    assert made.head.labels == ("lonely", "other", "same", "same, other")
    assert [one.split_rows for one in made.tried[3:]] == [27, 27]
    assert [event["event"] for event in events[:2]] == ["classifier.tuning"] * 2
    assert "on 77 rows, to be judged on 27 others" in events[0]["reason"]


@pytest.mark.parametrize(
    ("way", "tokens", "size"),
    [("contrastive", 20, 32), ("contrastive", 256, 8), ("encoder", 256, 16), ("encoder", 9_999, 2)],
)
def test_long_texts_are_read_in_smaller_batches(way: Any, tokens: int, size: int) -> None:
    settings = replace(SHORT, way=way, batch_size=32)
    assert batch_size_for(np.full(10, tokens), settings) == size


class Vectors:
    """An encoder that has no folder."""

    fingerprint, dimension = "vectors", 4

    def encode(self, texts: Any) -> np.ndarray:
        """Return one vector for all."""
        return np.ones((len(texts), 4), np.float32) / 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda first, rows: (replace(first, head=replace(first.head, accuracy=0.98)), rows),
            "leaves no room",
        ),
        (lambda first, rows: (replace(first, tried=()), rows), "too few rows for a held-out share"),
        (lambda first, rows: (first, replace(rows, y=rows.y[:99])), "99 rows of 2 labels, and it takes 100"),
        (
            lambda first, rows: (first, replace(rows, labels=tuple(f"l{n}" for n in range(80)))),
            "240 rows of 80 labels",
        ),
    ],
)
def test_nothing_is_tuned_without_room_or_rows(
    change: Callable[..., Any], reason: str, first: TextClassifier, rows: LabelledRows, embedder: Embedder
) -> None:
    one, changed = change(first, rows)
    made = with_tuned_embedder(one, changed, embedder, Path("never-made"))
    assert made == replace(one, untried=made.untried)
    assert reason in made.untried[0]
    assert not Path("never-made").exists()


def test_encoder_without_a_folder_is_not_tuned(first: TextClassifier, rows: LabelledRows) -> None:
    other: Any = Vectors()
    assert "no weights in a folder" in with_tuned_embedder(first, rows, other, Path("never-made")).untried[0]


def right(count: int, first: int = 0) -> HeldOutScores:
    """Return the scores of 100 rows, of which so many are right from one on."""
    scores = np.tile(np.array([0.0, 1.0], np.float32), (100, 1))
    scores[first : first + count, 0] = 2
    return HeldOutScores(scores=scores, y=np.zeros(100, int))


@pytest.mark.parametrize(
    ("after", "gain", "error"),
    [
        (right(82), 0.02, 0.014),  # two gained, none lost
        (right(80), 0, 0),
        (right(82, 10), 0.02, 0.0469),  # 12 gained, 10 lost
        (right(86, 10), 0.06, 0.0506),  # 16 gained, 10 lost
    ],
)
def test_gain_and_its_standard_error_are_paired(after: HeldOutScores, gain: float, error: float) -> None:
    assert gain_on_split(after, right(80)) == pytest.approx((gain, error), abs=1e-4)


@pytest.mark.parametrize(("better", "stated"), [(0.02, 0.67), (0.0, 0.32), (-0.02, 0.08)])
def test_stated_shares_of_splits_that_take_an_embedder(better: float, stated: float) -> None:
    """The shares in the docstring of MIN_STANDARD_ERRORS: 193 rows, of which 9 % change sides."""
    shares = [(0.09 + better) / 2, (0.09 - better) / 2, 0.91]
    y, takes = np.zeros(193, int), 0
    for counts in np.random.default_rng(0).multinomial(len(y), shares, size=4000):
        side = np.repeat([1, -1, 0], counts)
        after, before = (
            HeldOutScores(scores=np.stack([side * sign, 0 * side], axis=1), y=y) for sign in (1, -1)
        )
        gain, error = gain_on_split(after, before)
        takes += gain > max(0.0, MIN_STANDARD_ERRORS * error)
    assert takes / 4000 == pytest.approx(stated, abs=0.02)


def test_near_tie_keeps_the_first_and_says_so(
    first: TextClassifier, rows: LabelledRows, embedder: Embedder, tmp_path: Path
) -> None:
    """Tuned at a rate of nearly nothing, the embedder gives the same labels."""
    ways: Mapping[FeatureKind, LabelTuning] = {
        "encoder": replace(FAST["encoder"], epochs=1, learning_rate=1e-8)
    }
    embeddings = [replace(one, accuracy=one.features == "embeddings") for one in first.tried]
    made = with_tuned_embedder(
        replace(first, tried=tuple(embeddings)), rows, embedder, tmp_path / "work", ways=ways
    )
    assert made.features == first.features
    assert made.tried[-1].features == "encoder"
    assert "not chosen, a gain of " in made.untried[0]
    assert "standard errors of " in made.untried[0]
    assert not (tmp_path / "work").exists()


def test_split_keeps_near_repeats_together_and_every_label_on_both_sides(rows: LabelledRows) -> None:
    groups = [n // 2 for n in range(240)]
    train, test = one_split(replace(rows, groups=groups), 0)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(240))
    assert not {groups[n] for n in train} & {groups[n] for n in test}
    assert set(rows.y[test].tolist()) == set(rows.y[train].tolist()) == {0, 1}
    assert 50 <= len(test) <= 70


def test_pairs_have_one_label_and_an_epoch_reads_every_row_once() -> None:
    y = np.array([0, 0, 1, 1, 1, 2])
    batches = list(label_batches(y, replace(SHORT, batch_size=4), 3))
    assert sorted(row for rows, _ in batches for row in rows) == list(range(6))
    for own, pairs in batches:
        assert [y[n] for n in own] == [y[n] for n in pairs]
        assert all(row != pair for row, pair in zip(own, pairs, strict=True) if row != 5)
    assert [len(own) for own, _ in batches] == [4, 2]
    assert batches == list(label_batches(y, replace(SHORT, batch_size=4), 3))
    assert all(not pairs for _, pairs in label_batches(y, replace(SHORT, way="encoder"), 0))
