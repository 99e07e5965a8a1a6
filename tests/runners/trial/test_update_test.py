"""A finished run tested with an update: nothing of the user's or the run's files is changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from rag.files import write_json
from rag.grounding.refusal import RefusalThreshold
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import RunFolder, read_journal
from runners.runs.run import open_session
from runners.trial import staleness
from runners.trial.staleness import read_staleness

SAID = (
    "[PAD] [UNK] how many berths has the pier for visitors ? . # 20 21 22 23 24 25 26 27 28 29 30 31 99 "
    "amber birch copper dunlin elder falcon garnet heron indigo juniper kelp lantern"
)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """The folder of a BERT of 8,000 parameters with the words of these tests."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder, words = tmp_path_factory.mktemp("embedder"), SAID.split()
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return little_bert(folder, tokenizer)


def plan(tiny: Model, embedder: Path, documents: Path) -> Plan:
    """Return a plan with one arm that reads the documents and one that only has weights."""
    return parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(embedder)},
            "data": {"documents": str(documents), "examples": "e.jsonl"},
            "weights": {"style": 1},
            "steps": [
                {"kind": "index", "k": 1},
                {"kind": "train", "arm": "lora"},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "rag", "retrieval": True},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "max_new_tokens": 4,
        }
    )


@pytest.fixture
def run(tiny: Model, adapter: Path, embedder: Path, piers: Path, tmp_path: Path) -> RunFolder:
    """A run folder with index, refusal threshold and weights, sealed by a manifest."""
    from rag.embedding.embedder import Embedder
    from rag.index import Index

    run_plan = plan(tiny, embedder, piers)
    folder = RunFolder.create(tmp_path / "run", run_plan)
    Index.build(folder.path / "index", piers, Embedder(embedder))
    write_json(folder.path / "refusal.json", RefusalThreshold(weights={}, bias=1.0, how="default").to_json())
    shutil.copytree(adapter, folder.adapter("lora", 0))
    folder.seal({})
    return folder


@pytest.fixture
def update(tmp_path: Path) -> Path:
    """An update of one fact."""
    folder = tmp_path / "update"
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "pier00.md").write_text(
        "# Amber Pier\n\nThe Amber Pier has 99 berths for visitors.\n", "utf-8"
    )
    row = {
        "id": "s1",
        "question": "How many berths has the Amber Pier?",
        "answers": ["99"],
        "old_answers": ["20"],
    }
    (folder / "stale.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return folder


def state(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


def test_update_test_changes_no_files(run: RunFolder, update: Path, piers: Path) -> None:
    documents, index = state(piers), state(run.path / "index")
    table = staleness.try_update(run, update)
    assert state(piers) == documents
    assert {k: v for k, v in state(run.path / "index").items() if k in index} == index
    assert [row["arm"] for row in table["arms"]] == ["rag", "lora"]
    assert table["line"].startswith("After the update, of 1 changed facts")
    assert table == read_staleness(run.path)
    (journal,) = (run.path / "trial").glob("stale-*.jsonl")
    rows = read_journal(journal)
    assert sorted((r["arm"], r["when"], r.get("repeated", False)) for r in rows) == [
        ("lora", "after", True),
        ("lora", "before", False),
        ("rag", "after", False),
        ("rag", "before", False),
    ]
    before = journal.read_bytes()
    assert staleness.try_update(run, update) == table
    assert journal.read_bytes() == before
    (update / "documents" / "pier01.md").write_text("# Birch\n\nThe Birch Pier has 98 berths.\n", "utf-8")
    staleness.try_update(run, update)
    assert len(list((run.path / "trial").glob("stale-*.jsonl"))) == 2


def test_arm_reads_updated_index_only_during_test(run: RunFolder, update: Path, piers: Path) -> None:
    context = open_session(run.path).context

    def read() -> str:
        (result,) = context.retriever.find(["How many berths has the Amber Pier?"])
        return " ".join(hit.chunk.text for hit in result.hits)

    assert "20 berths" in read()
    with staleness._with_updated_index(context, piers, update / "documents"):
        assert "99 berths" in read()
    assert "20 berths" in read()


def test_single_document_file_is_replaced_completely(
    tiny: Model, embedder: Path, tmp_path: Path, update: Path
) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text('{"id": "a", "text": "Old."}\n', "utf-8")
    run_plan = plan(tiny, embedder, file)
    with pytest.raises(BadInput, match=r"all\.jsonl"):
        staleness.check_update(run_plan, update)
    (update / "documents" / "all.jsonl").write_text('{"id": "a", "text": "New."}\n', "utf-8")
    assert [q.id for q in staleness.check_update(run_plan, update)] == ["s1"]
    from runners.trial.staleness import updated_documents

    changed = updated_documents(tmp_path / "scratch", file, update / "documents")
    assert (changed.name, "New." in changed.read_text("utf-8")) == ("all.jsonl", True)
    assert "Old." in file.read_text("utf-8")


def test_unusable_update_is_refused(tiny: Model, embedder: Path, piers: Path, tmp_path: Path) -> None:
    run_plan: Any = plan(tiny, embedder, piers)
    with pytest.raises(BadInput, match="not a folder"):
        staleness.check_update(run_plan, tmp_path / "none")
    with pytest.raises(BadInput, match="lacks documents/"):
        staleness.check_update(run_plan, tmp_path)
