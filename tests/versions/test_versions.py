"""Files of every number so far open; newer ones are refused plainly; older ones are migrated, and a copy is kept."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor import cli
from advisor.results import read_report, read_scores
from rag.durable import MANIFEST, write_manifest
from rag.errors import BadInput
from rag.index import Index
from rag.stores import text
from rag.stores.text import TextStore
from rag.versions import FORMATS, Format, format_of
from runners import adapters
from runners.export.source import Source
from runners.opened import load, open_session
from runners.plan import parse_plan, read_plan

HERE = Path(__file__).parent
KEPT = sorted(HERE.glob("schema-*"))
spec = importlib.util.spec_from_file_location("make", HERE / "make.py")
assert spec is not None
assert spec.loader is not None
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(params=KEPT, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Return what lays out a fixture of an earlier number as the program wrote it."""
    return lambda name: make.restore(request.param / name, tmp_path / name)


def test_there_are_fixtures_for_every_number() -> None:
    """A format whose number went up brings the fixtures of the number before, and the way from it."""
    newest = max(each.current for each in FORMATS)
    assert [folder.name for folder in KEPT] == [f"schema-{n}" for n in range(1, newest + 1)]
    for each in FORMATS:
        assert set(each.migrations) == set(range(each.oldest, each.current)), each.name
    assert len({each.name for each in FORMATS}) == len(FORMATS)


def test_an_index_opens_and_answers(old: Callable[[str], Path]) -> None:
    folder = old("index")
    index = Index.open(folder, make.Letters())
    assert [hit.chunk.doc for hit in index.search("How many berths has the Copper Pier?", k=1)] == [
        "copper.md"
    ]
    assert index.check()["chunks"] == 3
    (folder.parent / "documents").mkdir()
    (folder.parent / "documents" / "pier9.md").write_text("Pier 9 has 12 berths.\n", "utf-8")
    report = Index.update(folder, folder.parent / "documents", make.Letters())
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
    found = adapters.show(old("adapter"))
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
        "plan": lambda: load(place), "report": lambda: read_report(place), "scores": lambda: read_scores(place),
        "run": lambda: load(place).folder.check(), "index": lambda: Index.open(place, make.Letters()),
    }  # fmt: skip
    if name == "adapter":
        assert "newer tunewise" in adapters.show(place).problem
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
    for opens in (lambda: open_session(run).arm(), lambda: Source(run)):
        with pytest.raises(BadInput, match="newer tunewise: report of schema 7"):
            opens()


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None, True, 2**40], ids=str)
def test_what_is_no_number_is_damage(number: object) -> None:
    with pytest.raises(BadInput, match="damaged"):
        parse_plan({**make.PLAN, "schema": number})


THREE = Format(
    "sample",
    current=3,
    migrations={
        1: lambda found: {"words": found["text"].split()},
        2: lambda found: {"words": found["words"], "count": len(found["words"])},
    },
)


def test_an_older_mapping_is_migrated_step_by_step() -> None:
    """Every step is taken, once, from the number the file says; the loaded mapping stays as it was."""
    given = {"schema": 1, "text": "a b"}
    assert THREE.today(given, "it") == {"schema": 3, "words": ["a", "b"], "count": 2}
    assert given == {"schema": 1, "text": "a b"}
    assert THREE.today({"schema": 2, "words": ["a"]}, "it") == {"schema": 3, "words": ["a"], "count": 1}
    assert THREE.today({"words": [], "count": 0}, "it") == {"words": [], "count": 0}
    with pytest.raises(BadInput, match=r"older tunewise.*reads from 2"):
        replace(THREE, oldest=2).today(given, "it")


def _with_notes(db: sqlite3.Connection) -> None:
    db.execute("alter table chunks add column note text")
    db.execute("update chunks set note = 'kept'")


def test_an_older_text_store_is_migrated_by_its_writer_and_a_copy_is_kept(old: Callable[[str], Path]) -> None:
    """A reader refuses and names the verb; the writer changes it in one transaction, or not at all."""
    folder = old("index")
    two = Format("text store", current=2, migrations={1: _with_notes})
    with pytest.raises(BadInput, match="older tunewise") as refused:
        TextStore(folder, kind=two)
    assert "index check INDEX --repair" in refused.value.hint
    with pytest.raises(BadInput, match="no such table"):
        TextStore(
            folder, write=True, kind=replace(two, migrations={1: lambda db: db.execute("drop table missing")})
        )
    with TextStore(folder) as still:
        assert len(still.documents(1)) == 3
    with TextStore(folder, write=True, kind=two) as now:
        assert len(now.documents(1)) == 3
    assert len(list(folder.glob("*.bak"))) == 1
    with sqlite3.connect(folder / "text.sqlite") as db:
        assert db.execute("pragma user_version").fetchone() == (2,)
        assert db.execute("select distinct note from chunks").fetchall() == [("kept",)]
    (folder / "text.sqlite").write_bytes((folder / "text.sqlite.schema-1.bak").read_bytes())
    with TextStore(folder, write=True) as before:
        assert len(before.documents(1)) == 3
        before.scrub()
    assert list(folder.glob("*.bak")) == [], "a purge leaves no copy behind"


def test_the_tables_do_not_change_without_a_number() -> None:
    """Whoever changes the tables raises the number of the text store, adds a migration and changes this line."""
    assert (format_of("text store").current, zlib.crc32(text._TABLES.encode()) & 0x7FFFFFFF) == (
        1,
        text._UNNUMBERED,
    )


def test_stores_from_before_the_numbers_open(old: Callable[[str], Path]) -> None:
    folder = old("index")
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute(f"pragma user_version = {text._UNNUMBERED}")
    assert Index.open(folder, make.Letters()).search("berths", k=1)


def test_a_manifest_is_written_with_its_kinds_number(tmp_path: Path) -> None:
    assert write_manifest(tmp_path, "run")["schema"] == format_of("run").current
    assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["schema"] == 1
    assert format_of("checkpoint") == Format("checkpoint")
