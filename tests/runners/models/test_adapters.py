"""Listing of tuned weights: several on one base, damaged ones marked, and their model cards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rag import files
from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference import weights
from runners.models import adapters, cards
from runners.models.cards import CARD_FILE
from runners.models.resolve import Model
from runners.plan.train_config import RunOrigin, TrainConfig
from runners.train import fit
from runners.trial.trial import ArmScores, with_intervals

FEW = TrainConfig(epochs=0.5, rank=4, alpha=8.0, learning_rate=1e-2, batch_tokens=300)
WHY = RunOrigin(("desk.jsonl",), {"rank": "4 because 36 rows"}, "ab" * 32)
ARM = ArmScores(
    "lora", ("a", "b", "c"), ({"style": 1.0},) * 3, (0.2, 0.5, 0.9), (1.0,) * 3, (9,) * 3, (9,) * 3
)


@pytest.fixture(scope="module")
def store(
    tiny: Model, other: Model, examples: tuple[Example, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A runs folder with two adapters of one run, one of another base, and a whole model."""
    runs = tmp_path_factory.mktemp("store") / "runs"
    for number, (folder, base, config) in enumerate(
        (
            ("desk/adapters/lora-s0", tiny, FEW),
            ("desk/adapters/hybrid-s0", tiny, FEW.replace(variant="dora")),
            ("old/adapters/lora-s0", other, FEW),
            ("single", tiny, FEW.replace(method="full")),
        )
    ):
        fit(examples[number:], config, base, runs / folder, origin=WHY)
    return runs


def test_find_adapters_lists_all_weights(store: Path, tiny: Model, other: Model) -> None:
    found = {
        s.folder.relative_to(store).as_posix(): s for s in adapters.find_adapters([store, store / "single"])
    }
    assert list(found) == [s.folder.relative_to(store).as_posix() for s in adapters.find_adapters([store])]
    assert found.keys() == {
        "desk/adapters/lora-s0",
        "desk/adapters/hybrid-s0",
        "old/adapters/lora-s0",
        "single",
    }
    assert {s.problem for s in found.values()} == {""}
    one = found["desk/adapters/hybrid-s0"]
    assert (one.kind, one.method, one.variant, one.rank, one.rows) == ("adapter", "lora", "dora", 4, 35)
    assert (one.base, one.fingerprint, one.source) == (tiny.name, tiny.fingerprint, "path")
    assert (one.files, one.plan_sha256) == (("desk.jsonl",), "ab" * 32)
    assert found["old/adapters/lora-s0"].fingerprint == other.fingerprint
    assert (found["single"].kind, found["single"].variant, found["single"].rank) == ("model", "", None)
    assert len({s.data_sha256 for s in found.values()}) == 4
    json.dumps([s.to_json() for s in found.values()])


def _cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _another_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    facts = {k: v for k, v in manifest.items() if k not in ("files", "schema", "kind")}
    files.write_manifest(folder, "adapter", facts, list(manifest["files"]))


def _another_base(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["base"]["fingerprint"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "adapter_model.safetensors has"),
        (_another_template, "its template is"),
        (_another_base, "made on 0000000000000000"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "damaged"),
    ],
)
def test_unusable_weights_have_a_problem(
    store: Path, tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    shutil.copytree(store / "desk", tmp_path / "desk")
    damage(tmp_path / "desk/adapters/lora-s0")
    problems = {s.folder.name: s.problem for s in adapters.find_adapters([tmp_path])}
    assert problem in problems["lora-s0"]
    assert problems["hybrid-s0"] == ""


def test_missing_folder_and_folder_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        adapters.find_adapters([tmp_path / "none"])
    with pytest.raises(BadInput, match="no tuned weights"):
        adapters.read_adapter(tmp_path)
    assert adapters.find_adapters([tmp_path]) == []


def test_scores_are_added_to_manifest_and_card(store: Path, tmp_path: Path, tiny: Model) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(store / "desk/adapters/lora-s0", folder)
    assert "Not measured" in (folder / CARD_FILE).read_text("utf-8")
    scores = with_intervals(ARM)
    cards.rewrite_card(folder, scores)
    text = (folder / CARD_FILE).read_text("utf-8")
    assert "| combined | 0.533 | 0." in text
    assert "| style | 1.000 | 1.000 to 1.000 | 3 |" in text
    assert adapters.read_adapter(folder).scores == scores
    weights.check_same_base(folder, tiny, "adapter")
    (folder / CARD_FILE).write_text(f"{text}\nOur own words.\n", "utf-8")
    weights.check_same_base(folder, tiny, "adapter")


@pytest.mark.parametrize("name", ["desk/adapters/hybrid-s0", "single"])
def test_card_has_data_settings_reasons_licence_and_loading(store: Path, name: str) -> None:
    text = (store / name / CARD_FILE).read_text("utf-8")
    full = name == "single"
    front = text.split("---")[1]
    assert 'license: "unknown"' in front
    assert f'library_name: "{"transformers" if full else "peft"}"' in front
    assert "desk.jsonl: 3" in text
    assert "checkpointing off: the run takes" in text
    assert ("| rank | 4 | 36 rows |" in text) is not full
    assert ("PeftModel.from_pretrained" in text) is not full
    assert "| optimizer | adamw |" in text
