"""A run whose index step names a database: built there, asked, refreshed, exported; refusals that need no server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.backends.base import BACKEND_FILE, write_backend_file
from rag.backends.build import update_at
from rag.backends.consent import INDEX_HOSTS
from rag.errors import BadInput
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import IndexStep
from runners.run_folder import INDEX, read_run_plan
from runners.runs.endpoint_consent import set_unconfirmed
from runners.runs.opened import OpenRun
from runners.runs.plan_models import named_models
from runners.runs.retrieval import check_backend_allowed, check_index_place
from runners.trial.execute import run_plan
from tests.support.postgres_server import PostgresServer

URL = "postgresql://tune@db.example.org/desk?index=piers"


def plan_with(backend: str | None, **more: Any) -> Plan:
    steps = [{"kind": "index", "backend": backend}, {"kind": "evaluate", "arm": "rag", "retrieval": True}]
    body: dict[str, Any] = {"name": "piers", "choice": "rag", "model": {"name": "tiny"}, "max_new_tokens": 4}
    body |= {"weights": {"token_f1": 1}, "forgetting": {"prompts": 0}, "steps": steps}
    body["data"] = {"documents": "documents", "questions": "questions.jsonl"}
    return parse_plan(body | more)


def test_a_plan_names_a_database_and_older_plans_keep_their_digest() -> None:
    assert "backend" not in IndexStep().model_dump()
    plan = plan_with(URL)
    assert plan.index is not None
    assert plan.index.backend == URL
    assert plan_with(None).digest() != plan.digest()
    assert named_models(plan)[-1] == {
        "model": plan.embedder.name,
        "endpoint": "db.example.org",
        "as": "index",
    }
    for wrong, words in (
        ("postgresql://a:secret@h/d", "must not contain a password"),
        ("mysql://h/d", "no backend"),
    ):
        with pytest.raises(BadInput, match=words) as refusal:
            plan_with(wrong)
        assert "a:secret" not in refusal.value.message


def test_documents_go_only_where_they_may(tmp_path: Path) -> None:
    answers = {"data_must_stay_local": {"value": True, "source": "asked"}}
    with pytest.raises(BadInput, match="the data must stay local"):
        check_backend_allowed(plan_with(URL, answers=answers), tmp_path)
    check_backend_allowed(plan_with("postgresql://tune@127.0.0.1/d", answers=answers), tmp_path)
    check_backend_allowed(plan_with("postgresql:///d?host=/run/postgresql", answers=answers), tmp_path)
    for hidden in ("postgresql:///d?host=db.example.org", "postgresql://127.0.0.1:1,db.example.org:2/d"):
        with pytest.raises(BadInput, match="the data must stay local"):
            check_backend_allowed(plan_with(hidden, answers=answers), tmp_path)
    set_unconfirmed(tmp_path, ["db.example.org"])
    with pytest.raises(BadInput, match="runs allow"):
        check_backend_allowed(plan_with(URL), tmp_path)
    write_backend_file(tmp_path / INDEX, URL.replace("desk", "other"), 1)
    with pytest.raises(BadInput, match="which the run's plan does not name"):
        check_index_place(plan_with(URL), tmp_path / INDEX)


@pytest.fixture
def words_embedder(piers: Path, little_bert: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of an embedder that knows the words of the documents."""
    texts = " ".join(path.read_text("utf-8") for path in piers.iterdir())
    vocabulary = ["?", "[PAD]", "How", "many", *sorted(set(re.findall(r"\w+|[^\w\s]", texts)))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    return little_bert(tmp_path / "embedder", tokenizer)


@pytest.mark.engines
def test_a_run_builds_asks_refreshes_and_exports_its_index_in_a_database(
    tiny: Model,
    piers: Path,
    words_embedder: Path,
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(INDEX_HOSTS, "127.0.0.1")  # the plan and the run folder name it
    url = postgres.url("run")
    rows = [
        {"question": f"How many berths has the Heron Pier on day {n} ?", "answers": ["27"]} for n in range(6)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plan = plan_with(
        url,
        model={"name": str(tiny.folder)},
        embedder={"name": str(words_embedder)},
        data={"documents": str(piers), "questions": str(tmp_path / "questions.jsonl")},
    )
    events: list[dict[str, Any]] = []
    path = run_plan(plan, tmp_path / "run", on_event=events.append).path
    assert json.loads((path / INDEX / BACKEND_FILE).read_text("utf-8"))["generation"] == 1
    built = next(event for event in events if event.get("backend"))
    assert built["backend"] == url
    assert read_run_plan(path).index == plan.index

    session = OpenRun.open(path).obtain()
    answer = session.ask(["How many berths has the Heron Pier ?"], session.arm("rag"))[0]
    assert answer.searched is not None
    assert answer.searched["generation"] == 1
    assert not session.retrieval.refresh()
    newer = tmp_path / "documents"
    newer.mkdir()
    (newer / "pier.md").write_text("The Heron Pier has 99 berths.", "utf-8")
    update_at(url, newer, session.models.embedder)
    assert session.retrieval.refresh()
    answer = session.ask(["How many berths has the Heron Pier ?"], session.arm("rag"))[0]
    assert answer.searched is not None
    assert (answer.searched["generation"], answer.searched["documents"]) == (2, 1)

    export(path, ExportRequest("index", out=tmp_path / "export"))
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "export" / "passages.parquet")
    assert table.column("text").to_pylist() == [chunk.text for chunk in session.retrieval.index.chunks]
    again = run_plan(plan, tmp_path / "again").path
    assert json.loads((again / INDEX / BACKEND_FILE).read_text("utf-8"))["generation"] == 3, (
        "updated, not rebuilt"
    )
