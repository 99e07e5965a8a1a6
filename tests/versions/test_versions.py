"""Files of schema 1 open; files of a newer schema are refused with what to do, and damaged numbers as damage."""

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

KEPT = Path(__file__).with_name("schema-1")
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
    """An embedder that counts letters: one token per word, and the same for ever."""

    name, fingerprint, dimension, max_tokens = "letters", "letters-1", 26, 60

    def __init__(self) -> None:
        """Make the tokenizer: every word is one token."""
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


def restore(kept: Path, folder: Path) -> Path:
    """Lay a fixture out as the program wrote it, in a new folder; return it."""
    for path in sorted(p for p in kept.rglob("*") if p.is_file()):
        to = folder / path.relative_to(kept)
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
def old(tmp_path: Path) -> Callable[[str], Path]:
    """Return what copies a fixture into a new folder, as the program wrote it."""
    return lambda name: restore(KEPT / name, tmp_path / name)


def test_an_index_opens_and_answers(old: Callable[[str], Path]) -> None:
    folder = old("index")
    index = Index.open(folder, Letters())
    assert [hit.chunk.doc for hit in index.search("How many berths has the Copper Pier?", k=1)] == [
        "copper.md"
    ]
    assert index.check()["chunks"] == 3
    (folder.parent / "documents").mkdir()
    (folder.parent / "documents" / "pier9.md").write_text("Pier 9 has 12 berths.\n", "utf-8")
    report = Index.update(folder, folder.parent / "documents", Letters())
    assert (report.added, report.removed) == (1, 3)


def test_a_run_opens(old: Callable[[str], Path]) -> None:
    run = load(old("run"))
    run.folder.check()
    assert run.scores() == {"prompting": 0.75, "prompting-again": 0.5}
    assert read_report(run.path)["verdict"]["outcome"] == "undecided"
    assert [arm.arm for arm in read_scores(run.path)] == ["prompting", "prompting-again"]
    assert run.folder.finished("evaluate:prompting", {"n": 2}) == {"answers": 2}
    assert read_plan(run.path / "plan.yaml").answers["must_cite"].value is True


def test_tuned_weights_open(old: Callable[[str], Path]) -> None:
    found = adapters.read_adapter(old("adapter"))
    assert (found.problem, found.method, found.rank, found.rows) == ("", "lora", 1, 8)


@pytest.mark.parametrize("name", ["plan", "report", "scores", "run", "adapter", "index"])
def test_a_newer_file_is_refused_with_what_to_do(old: Callable[[str], Path], name: str) -> None:
    """Never half read: exit 3, the numbers, and that tunewise must be updated."""
    place = old({"plan": "run", "report": "run", "scores": "run"}.get(name, name))
    files = {"plan": "plan.yaml", "report": "report.json", "scores": "trial/scores.json"}
    if name == "index":
        with sqlite3.connect(place / "text.sqlite") as db:
            db.execute("pragma user_version = 2")
    else:
        path = place / files.get(name, MANIFEST)
        said = path.read_text("utf-8")
        newer = said.replace("schema: 1", "schema: 7").replace('"schema": 1', '"schema": 7')
        assert newer != said
        path.write_text(newer, "utf-8")
    opens: dict[str, Callable[[], Any]] = {
        "plan": lambda: load(place),
        "report": lambda: read_report(place),
        "scores": lambda: read_scores(place),
        "run": lambda: load(place).folder.check(),
        "index": lambda: Index.open(place, Letters()),
    }
    if name == "adapter":
        assert "newer tunewise" in adapters.read_adapter(place).problem
        return
    with pytest.raises(BadInput, match=r"newer tunewise.*reads up to 1") as refused:
        opens[name]()
    assert refused.value.exit_code == 3
    assert "pip install --upgrade tunewise" in refused.value.hint


def test_a_newer_file_is_neither_called_damaged_nor_half_read(
    old: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The verbs that show say what to do, and never to destroy it; ask and exports take no newer report."""

    def newer(path: Path) -> None:
        said = path.read_text("utf-8")
        path.write_text(said.replace("schema: 1", "schema: 7").replace('"schema": 1', '"schema": 7'), "utf-8")

    def refused(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        assert stop.value.code == 3
        return capsys.readouterr().err

    for name in ("plan.yaml", "report.json", MANIFEST):
        run = old("run")
        newer(run / name)
        said = refused("runs", "show", str(run))
        assert "pip install --upgrade tunewise" in said
        assert "--overwrite" not in said
        assert "is damaged" not in said
    weights = old("adapter")
    newer(weights / MANIFEST)
    said = refused("adapters", "show", str(weights))
    assert "pip install --upgrade tunewise" in said
    assert "train it again" not in said
    run = old("run")
    newer(run / "report.json")
    (run / MANIFEST).unlink()
    for opens in (lambda: open_session(run).arm(), lambda: ExportSource(run)):
        with pytest.raises(BadInput, match="newer tunewise: report of schema 7"):
            opens()


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None, True, 2**40], ids=str)
def test_what_is_no_number_is_damage(number: object) -> None:
    with pytest.raises(BadInput, match="damaged"):
        parse_plan({**PLAN, "schema": number})


def test_the_tables_do_not_change_without_a_number() -> None:
    """Whoever changes the tables raises the number of the text store and changes this line."""
    assert (SCHEMA, zlib.crc32(text._TABLES.encode()) & 0x7FFFFFFF) == (1, text._UNNUMBERED)


def test_stores_from_before_the_numbers_open(old: Callable[[str], Path]) -> None:
    folder = old("index")
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute(f"pragma user_version = {text._UNNUMBERED}")
    assert Index.open(folder, Letters()).search("berths", k=1)


@pytest.mark.parametrize("number", [0, -1, 2**30], ids=str)
def test_damaged_number_of_a_text_store_is_refused(old: Callable[[str], Path], number: int) -> None:
    folder = old("index")
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute(f"pragma user_version = {number}")
    with pytest.raises(BadInput, match="damaged") as refused:
        Index.open(folder, Letters())
    assert "tunewise index build" in refused.value.hint


def test_a_manifest_is_written_with_its_number(tmp_path: Path) -> None:
    """Of every kind, one that has no row of its own in the table of formats too."""
    for kind in ("run", "checkpoint"):
        assert write_manifest(tmp_path, kind)["schema"] == 1
        assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["schema"] == 1
        assert check_manifest(tmp_path, kind)["kind"] == kind
