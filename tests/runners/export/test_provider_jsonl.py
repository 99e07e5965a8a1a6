"""The `index` export to Parquet, and the `provider-jsonl` export of training rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from rag.errors import BadInput
from rag.index import Index
from runners.data.examples import Example
from runners.export import provider_jsonl
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.export.parquet import COLUMNS
from runners.run_folder import read_run_plan


def test_parquet_holds_the_passages_and_vectors_of_the_index(
    llama: Any, embedder: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet

    result = export(llama.path, ExportRequest("index", out=tmp_path / "out"))
    table = parquet.read_table(Path(result.out) / "passages.parquet")
    index = Index.open(llama.path / "index", Embedder(embedder))
    assert tuple(table.column_names) == COLUMNS
    rows = table.to_pylist()
    assert [(r["id"], r["text"]) for r in rows] == [(c.id, c.text) for c in index.chunks]
    assert {r["fingerprint"] for r in rows} == {index.fingerprint}
    assert table.schema.metadata[b"tunewise.embedder"].decode() == index.embedder
    metadata = json.loads(rows[0]["metadata"])
    assert (metadata["doc"], metadata["line_start"]) == (index.chunks[0].doc, index.chunks[0].line_start)
    raw = index.raw(metadata["doc"])
    assert raw is not None
    assert raw[metadata["start"] : metadata["end"]] == rows[0]["text"]
    # Searched by inner product, the file gives one of the index's passages.
    question = "How many berths has the Heron Pier?"
    query = Embedder(embedder).encode([question], query=True)[0]
    vectors = np.array([r["vector"] for r in rows], dtype=np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    ids = [r["id"] for r in rows]
    assert np.array_equal(index.vectors(ids), vectors)
    assert result.checked["rows read back and equal"] == len(rows) == 10
    assert ids[int(np.argmax(vectors @ query))] in ids


def test_index_export_is_reused_and_needs_an_index(llama: Any, qwen: Any, tmp_path: Path) -> None:
    first = export(llama.path, ExportRequest("index", out=tmp_path / "one"))
    again = export(llama.path, ExportRequest("index", out=tmp_path / "one"))
    assert (first.again, again.again) == (False, True)
    with pytest.raises(BadInput, match="has no index"):
        export(qwen.path, ExportRequest("index", out=tmp_path / "two"))


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_plain_rows_are_examples_with_instructions(llama: Any, tmp_path: Path) -> None:
    result = export(llama.path, ExportRequest("provider-jsonl", "lora", None, tmp_path / "out"))
    rows = read_rows(Path(result.out) / "train.jsonl")
    assert len(rows) == result.checked["rows, all valid"] == 10
    assert [turn["role"] for turn in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[2]["messages"][-1]["content"] == "The Copper Pier has 22 berths. Shall I book?"
    assert all(not provider_jsonl.row_problem(row) for row in rows)
    assert result.checked["tokens of one pass"]


def test_hybrid_rows_show_passages_and_equal_the_trained_count(llama: Any, tmp_path: Path) -> None:
    result = export(llama.path, ExportRequest("provider-jsonl", "hybrid", None, tmp_path / "out"))
    rows = read_rows(Path(result.out) / "train.jsonl")
    assert all("Passages:" in row["messages"][-2]["content"] for row in rows)
    trained = next(
        e["result"]
        for e in map(json.loads, (llama.path / "events.jsonl").read_text("utf-8").splitlines())
        if e.get("event") == "step.done" and e["step"] == "train:hybrid"
    )
    assert len(rows) == trained["account"]["rows"] == result.checked["rows, all valid"]
    assert not any("have changed" in note for note in result.notes)


def test_changed_documents_are_noted_for_hybrid_rows(llama: Any, embedder: Path, tmp_path: Path) -> None:
    """The arm was trained on other rows: passages have changed, and some support no answer any more."""
    run, documents = tmp_path / "run", tmp_path / "documents"
    shutil.copytree(llama.path, run)
    shutil.copytree(read_run_plan(run).data.documents or "", documents)
    min(documents.iterdir()).write_text("# Closed\n\nThis pier is closed.\n", "utf-8")
    Index.update(run / "index", documents, Embedder(embedder))
    result = export(run, ExportRequest("provider-jsonl", "hybrid", None, tmp_path / "out"))
    assert result.notes[0].startswith("The documents have changed since the arm was trained: it learnt from")


def test_untrained_arm_gives_plain_rows_with_a_note(llama: Any, tmp_path: Path) -> None:
    result = export(llama.path, ExportRequest("provider-jsonl", "rag", None, tmp_path / "out"))
    assert result.notes[0].startswith("The arm rag was not trained")


def example(*turns: tuple[str, str], **fields: Any) -> Example:
    """An example of these turns."""
    return Example(tuple({"role": role, "content": text} for role, text in turns), {}, 1, **fields)


def test_last_only_sets_weight_zero_on_earlier_answers() -> None:
    chat = example(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert [t.get("weight") for t in provider_jsonl.provider_row(chat, last_only=True)["messages"]] == [
        None,
        0,
        None,
        None,
    ]
    assert [t.get("weight") for t in provider_jsonl.provider_row(chat)["messages"]] == [None] * 4


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "a"), ("assistant", "b")], ""),
        ([("system", "s"), ("user", "a"), ("assistant", "b")], ""),
        ([("user", "a")], "last turn is the user's"),
        ([("user", "a"), ("system", "s"), ("assistant", "b")], "after the first turn"),
        ([("critic", "a"), ("assistant", "b")], "role 'critic'"),
        ([("system", "a"), ("assistant", "b")], "no user turn"),
        ([("user", "a"), ("assistant", "  ")], "turn 2 (assistant) is empty"),
    ],
)
def test_row_problem_names_what_a_provider_refuses(turns: list[tuple[str, str]], expected: str) -> None:
    problem = provider_jsonl.row_problem({"messages": [{"role": r, "content": c} for r, c in turns]})
    assert expected in problem
    assert bool(problem) is bool(expected)


def test_tool_call_arguments_are_written_as_json_text() -> None:
    call: dict[str, Any] = {
        "id": "1",
        "type": "function",
        "function": {"name": "find", "arguments": {"pier": "Amber"}},
    }
    turns = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"},
    )
    row = provider_jsonl.provider_row(
        Example(turns, {}, 1, tools=({"type": "function", "function": {"name": "find"}},))
    )
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"pier": "Amber"}'
    assert "reasoning_content" not in row["messages"][1]
    assert provider_jsonl.row_problem(row) == ""
    assert call["function"]["arguments"] == {"pier": "Amber"}, "the example itself is unchanged"


def test_row_problem_checks_weights_and_tool_calls() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
    ]
    assert provider_jsonl.row_problem({"messages": turns}) == "no turn of it is learnt"
    turns[1]["weight"] = 0.5
    assert "only 0 and 1" in provider_jsonl.row_problem({"messages": turns})
    call = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
    ]
    assert "tools" in provider_jsonl.row_problem({"messages": call})
    assert provider_jsonl.row_problem({"messages": call, "tools": [{}]}) == ""
    unmatched = [
        *call[:1],
        {"role": "tool", "content": "4", "tool_call_id": "2"},
        {"role": "assistant", "content": "4"},
    ]
    assert "turn 2 (tool) answers no call" in provider_jsonl.row_problem({"messages": unmatched})
    user_weight = [{"role": "user", "content": "a", "weight": 0}, {"role": "assistant", "content": "b"}]
    assert "only the assistant's" in provider_jsonl.row_problem({"messages": user_weight})


@pytest.fixture
def unsealed_run(llama: Any, tmp_path: Path) -> Path:
    """An unsealed copy of the run, with a plan and examples of its own."""
    shutil.copytree(llama.path, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    rows = (llama.path.parent / "examples.jsonl").read_text("utf-8")
    (tmp_path / "examples.jsonl").write_text(rows, "utf-8")
    plan = tmp_path / "run" / "plan.yaml"
    plan.write_text(
        plan.read_text("utf-8").replace(
            str(llama.path.parent / "examples.jsonl"), str(tmp_path / "examples.jsonl")
        ),
        "utf-8",
    )
    return tmp_path / "run"


def test_data_that_must_stay_local_is_not_exported(unsealed_run: Path, tmp_path: Path) -> None:
    plan = unsealed_run / "plan.yaml"
    local = "answers:\n  data_must_stay_local: {value: true, source: flag}\n"
    plan.write_text(plan.read_text("utf-8") + local, "utf-8")
    with pytest.raises(BadInput, match="must stay local"):
        export(unsealed_run, ExportRequest("provider-jsonl", "lora", None, tmp_path / "out"))


def test_secrets_and_too_few_rows_are_refused_personal_data_noted(unsealed_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    rows = file.read_text("utf-8").splitlines()
    personal = json.dumps(
        {"prompt": "Whom do I write to?", "completion": "Write to ann.lee@harbour-desk.com. Shall I book?"}
    )
    file.write_text("\n".join([*rows, personal]) + "\n", "utf-8")
    result = export(unsealed_run, ExportRequest("provider-jsonl", "lora", None, tmp_path / "out"))
    assert any("e-mail address" in note for note in result.notes)
    assert "ann.lee" not in (Path(result.out) / "README.md").read_text("utf-8")
    key = json.dumps(
        {"prompt": "What is the key?", "completion": "It is sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ."}
    )
    file.write_text("\n".join([*rows, key]) + "\n", "utf-8")
    with pytest.raises(BadInput, match="API key") as refused:
        export(unsealed_run, ExportRequest("provider-jsonl", "lora", None, tmp_path / "two"))
    assert "aB3dE5" not in str(refused.value)
    file.write_text("\n".join(rows[:4]) + "\n", "utf-8")
    with pytest.raises(BadInput, match="there are 4 rows"):
        export(unsealed_run, ExportRequest("provider-jsonl", "lora", None, tmp_path / "two"))
