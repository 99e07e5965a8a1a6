"""The `classifier` export: its card's lines answer as the classifier does, without tunewise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advisor.report.report import judge
from rag.embedding.embedder import Embedder
from rag.training.labels import LabelTuning, tune_on_labels
from runners.classification.files import EMBEDDER, read_facts, save_classifier
from runners.classification.linear_head import LinearHead, fit_weights
from runners.classification.selection import FeatureKind, TextClassifier
from runners.classification.text_features import TextFeatures
from runners.export.bundle import unbundle
from runners.export.classifier import usage_of
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models.resolve import resolve_model
from runners.plan.schema import parse_plan
from runners.runs.opened import OpenRun
from runners.trial.execute import run_plan
from tests.support import synonyms

TEXTS = ("refund my ticket", "the fare back, please", "my bag is lost", "a coat was found", "when open")


@pytest.mark.real
@pytest.mark.parametrize("features", ["tfidf", "both"])
def test_lines_of_the_card_answer_as_the_classifier(
    features: FeatureKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_model("all-minilm-l6-v2").folder
    encoder = Embedder(folder)
    reader = None if features == "embeddings" else TextFeatures.fit(TEXTS, 3)
    columns = (reader.dimension if reader else 0) + (encoder.dimension if features != "tfidf" else 0)
    weights = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    head = LinearHead(
        labels=("a", "b", "c"),
        weights=weights,
        bias=np.zeros(3, np.float32),
        strength=1.0,
        accuracy=0.5,
        temperature=2.0,
    )
    made = TextClassifier(head=head, features=features, embedding_weight=2.0, text_features=reader)
    save_classifier(made, tmp_path / "made", encoder.fingerprint, {})
    usage = usage_of(read_facts(tmp_path / "made"), "all-minilm-l6-v2")
    code = re.search(r"```python\n(.*?)```", usage, re.DOTALL)
    assert code
    lines = re.sub(r"^texts = .*$", f"texts = {list(TEXTS)!r}", code[1], flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path / "made")
    names: dict[str, Any] = {"EMBEDDER": str(folder)}
    exec(lines, names)
    scores = made.scores(TEXTS, encoder.encode(TEXTS) if features != "tfidf" else None)
    assert names["labels"] == [head.labels[n] for n in scores.argmax(axis=1)]
    assert "temperature" in usage


def labelled_run(folder: Path, url: str) -> Any:
    """Return a run of a classifier whose plan names a tiny embedder."""
    labels = dict(zip(synonyms.GOODS[:2], ("fruit", "stone"), strict=True))
    texts = {
        f"the {pier} pier takes {goods} ?": label
        for pier in synonyms.PIERS
        for goods, label in labels.items()
    }
    rows = [{"prompt": text, "completion": label} for text, label in list(texts.items())[:12]]
    asked = [{"question": text, "reference": label} for text, label in list(texts.items())[12:]]
    for name, body in (("examples", rows), ("questions", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in body), "utf-8")
    plan = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": f"openai:tern-2@{url}"},
        "embedder": {"name": str(synonyms.embedder(folder / "plain"))},
        "data": {"examples": folder / "examples.jsonl", "test_questions": folder / "questions.jsonl"},
        "steps": [
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "classifier", "classifier": True},
        ],
        "weights": {"exact_match": 1},
    }
    return run_plan(parse_plan(plan), folder / "run"), texts


def test_tuned_embedder_is_exported_bundled_and_loaded_beside_its_head(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, labelled = labelled_run(tmp_path, server.url)
    texts, y = list(labelled), np.array([label == "stone" for label in labelled.values()], int)
    settings = LabelTuning(way="contrastive", epochs=3, learning_rate=1e-2)
    tune_on_labels(Embedder(tmp_path / "plain"), texts, y, settings, tmp_path / "tuned")
    tuned = Embedder(tmp_path / "tuned")
    weights, bias, _ = fit_weights(tuned.encode(texts), y, 10.0)
    head = LinearHead(
        labels=("fruit", "stone"), weights=weights, bias=bias, strength=10.0, accuracy=0.9, temperature=0.5
    )
    made = TextClassifier(head=head, features="contrastive", embedder=tmp_path / "tuned")
    expected = head.probabilities(made.scores(texts, tuned.encode(texts)))
    stored = run.path / "classifiers" / "classifier"
    save_classifier(
        made, stored, "plain", {key: read_facts(stored)[key] for key in ("rows", "left_out", "made_from")}
    )

    def answers(path: Path) -> list[tuple[str, float]]:
        session = OpenRun.open(path).obtain()
        given = session.ask(texts, session.arm("classifier"))
        return [(a.text, a.completion.labels[0].probability) for a in given]

    judge(run.path)  # lists the files of the run, which a bundle compares
    before = answers(run.path)
    assert before == [
        (head.labels[n], round(float(own[n]), 4))
        for own, n in zip(expected, expected.argmax(axis=1), strict=True)
    ]
    bundle = export(run.path, ExportRequest("bundle", out=tmp_path / "bundle"))
    unbundle(Path(bundle.out) / "p.zip", tmp_path / "unpacked")
    assert answers(tmp_path / "unpacked") == before

    exported = export(run.path, ExportRequest("classifier", "classifier", out=tmp_path / "exported"))
    assert f"{EMBEDDER}/model.safetensors" in exported.files
    assert {Path(name).suffix for name in exported.files} <= {".json", ".safetensors", ".txt"}
    card = (tmp_path / "exported" / "README.md").read_text("utf-8")
    assert "held-out accuracy" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path / "exported")
    names: dict[str, Any] = {}
    exec(re.sub(r"^texts = .*$", f"texts = {texts!r}", code[1], flags=re.MULTILINE), names)
    assert names["labels"] == [label for label, _ in before]
    next((tmp_path / "exported" / EMBEDDER).glob("*.safetensors")).write_bytes(b"")
    again = export(
        run.path, ExportRequest("classifier", "classifier", out=tmp_path / "other", overwrite=True)
    )
    assert again.files == exported.files
