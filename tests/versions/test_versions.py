"""Files of schema 1 open, files of a newer schema are refused with a hint, and invalid schema numbers are damage."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor import cli
from advisor.report.data import read_report, read_scores
from rag.errors import BadInput
from rag.files import MANIFEST, SCHEMA, check_manifest, write_manifest
from rag.index import Index
from rag.stores import text
from runners.export.source import ExportSource
from runners.models import adapters
from runners.plan.schema import parse_plan, read_plan
from runners.runs.run import load, open_session

FIXTURES = Path(__file__).with_name("schema-1")
"""Made at commit 477b318 by its tests/versions/make.py: arrays in base64, the text store as SQL."""
PLAN: dict[str, Any] = {
    "name": "piers",
    "choice": "prompting",
    "model": {"name": "openai:none@http://127.0.0.1:9/v1"},
    "data": {"questions": "questions.jsonl"},
    "steps": [{"kind": "evaluate", "arm": "prompting"}],
    "weights": {"token_f1": 1},
}


class Letters:
    """An encoder that counts letters: one token per word; it must not change, because the fixtures depend on it."""

    name = "letters"
    fingerprint = "letters-1"
    dimension = 26
    max_tokens = 60

    def __init__(self) -> None:
        """Make the tokenizer, for which every word is one token."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(self.tokenizer.encode(text).ids)

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> Any:
        """Return one unit row per text."""
        import numpy as np

        rows = np.array([[1e-3 + text.lower().count(chr(97 + n)) for n in range(26)] for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def restore(fixture: Path, folder: Path) -> Path:
    """Write a fixture into a new folder as the program wrote it, decoded; return the folder."""
    for path in sorted(p for p in fixture.rglob("*") if p.is_file()):
        to = folder / path.relative_to(fixture)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".b64":
            to.with_suffix("").write_bytes(base64.decodebytes(path.read_bytes()))
        elif path.suffix == ".sql":
            with sqlite3.connect(to.with_suffix("")) as db:
                db.executescript(path.read_text("utf-8"))
        else:
            to.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a fixture into a new folder, as the program wrote it."""
    return lambda name: restore(FIXTURES / name, tmp_path / name)


def test_schema_1_index_is_searched_and_updated(restored: Callable[[str], Path]) -> None:
    folder = restored("index")
    index = Index.open(folder, Letters())
    assert [hit.chunk.doc for hit in index.search("How many berths has the Copper Pier?", k=1)] == [
        "copper.md"
    ]
    assert index.check()["chunks"] == 3
    (folder.parent / "documents").mkdir()
    (folder.parent / "documents" / "pier9.md").write_text("Pier 9 has 12 berths.\n", "utf-8")
    report = Index.update(folder, folder.parent / "documents", Letters())
    assert (report.added, report.removed) == (1, 3)


def test_schema_1_run_opens(restored: Callable[[str], Path]) -> None:
    run = load(restored("run"))
    run.folder.check()
    assert run.scores() == {"prompting": 0.75, "prompting-again": 0.5}
    assert read_report(run.path).verdict.outcome == "undecided"
    assert [arm.arm for arm in read_scores(run.path)] == ["prompting", "prompting-again"]
    assert run.folder.finished("evaluate:prompting", {"n": 2}) == {"answers": 2}
    assert read_plan(run.path / "plan.yaml").answers["must_cite"].value is True


def test_schema_1_adapter_opens(restored: Callable[[str], Path]) -> None:
    adapter = adapters.read_adapter(restored("adapter"))
    assert (adapter.problem, adapter.method, adapter.rank, adapter.rows) == ("", "lora", 1, 8)


@pytest.mark.parametrize("name", ["plan", "report", "scores", "run", "adapter", "index"])
def test_newer_schema_is_refused_with_an_update_hint(restored: Callable[[str], Path], name: str) -> None:
    """Exit code 3, both schema numbers, and the hint to update tunewise."""
    folder = restored({"plan": "run", "report": "run", "scores": "run"}.get(name, name))
    files = {"plan": "plan.yaml", "report": "report.json", "scores": "trial/scores.json"}
    if name == "index":
        with sqlite3.connect(folder / "text.sqlite") as db:
            db.execute("pragma user_version = 2")
    else:
        path = folder / files.get(name, MANIFEST)
        text_before = path.read_text("utf-8")
        newer = text_before.replace("schema: 1", "schema: 7").replace('"schema": 1', '"schema": 7')
        assert newer != text_before
        path.write_text(newer, "utf-8")
    opens: dict[str, Callable[[], Any]] = {
        "plan": lambda: load(folder),
        "report": lambda: read_report(folder),
        "scores": lambda: read_scores(folder),
        "run": lambda: load(folder).folder.check(),
        "index": lambda: Index.open(folder, Letters()),
    }
    if name == "adapter":
        assert "newer tunewise" in adapters.read_adapter(folder).problem
        return
    with pytest.raises(BadInput, match=r"newer tunewise.*reads up to 1") as refused:
        opens[name]()
    assert refused.value.exit_code == 3
    assert "install a newer tunewise" in refused.value.hint


def test_newer_file_is_not_reported_as_damaged(
    restored: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The verbs that show a file advise an update and not to overwrite it; ask and export refuse a newer report."""

    def newer(path: Path) -> None:
        content = path.read_text("utf-8")
        path.write_text(
            content.replace("schema: 1", "schema: 7").replace('"schema": 1', '"schema": 7'), "utf-8"
        )

    def refused(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        assert stop.value.code == 3
        return capsys.readouterr().err

    for name in ("plan.yaml", "report.json", MANIFEST):
        run = restored("run")
        newer(run / name)
        message = refused("runs", "show", str(run))
        assert "install a newer tunewise" in message
        assert "--overwrite" not in message
        assert "is damaged" not in message
    weights = restored("adapter")
    newer(weights / MANIFEST)
    message = refused("adapters", "show", str(weights))
    assert "install a newer tunewise" in message
    assert "train it again" not in message
    run = restored("run")
    newer(run / "report.json")
    (run / MANIFEST).unlink()
    for opens in (lambda: open_session(run).arm(), lambda: ExportSource(run)):
        with pytest.raises(BadInput, match="newer tunewise: report of schema 7"):
            opens()


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None, True, 2**40], ids=str)
def test_invalid_schema_number_of_a_plan_is_damage(number: object) -> None:
    with pytest.raises(BadInput, match="damaged"):
        parse_plan({**PLAN, "schema": number})


def test_text_store_tables_match_their_schema_number() -> None:
    """A change of the tables needs a higher schema number of the text store, and a change of this line."""
    assert (SCHEMA, zlib.crc32(text._TABLES.encode()) & 0x7FFFFFFF) == (1, text._UNNUMBERED)


def test_text_store_without_a_schema_number_opens(restored: Callable[[str], Path]) -> None:
    folder = restored("index")
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute(f"pragma user_version = {text._UNNUMBERED}")
    assert Index.open(folder, Letters()).search("berths", k=1)


@pytest.mark.parametrize("number", [0, -1, 2**30], ids=str)
def test_invalid_schema_number_of_a_text_store_is_damage(
    restored: Callable[[str], Path], number: int
) -> None:
    folder = restored("index")
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute(f"pragma user_version = {number}")
    with pytest.raises(BadInput, match="damaged") as refused:
        Index.open(folder, Letters())
    assert "tunewise index build" in refused.value.hint


def test_manifest_is_written_with_its_schema_number(tmp_path: Path) -> None:
    """Of every kind, also one that has no entry in the table of formats."""
    for kind in ("run", "checkpoint"):
        assert write_manifest(tmp_path, kind)["schema"] == 1
        assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["schema"] == 1
        assert check_manifest(tmp_path, kind)["kind"] == kind
