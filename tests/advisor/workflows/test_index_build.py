"""`tunewise index`: build, update, check, repair and watch, with a tiny embedder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from advisor.cli import main
from advisor.workflows import index_build
from advisor.workflows.index_build import adapters_knowing_removed
from tests.support.postgres_server import PostgresServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """The folder of a BERT of 8,000 parameters with the words of these tests."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("embedder")
    words = [
        "[PAD]",
        "[UNK]",
        "a",
        "dogs",
        "travel",
        "on",
        "deck",
        "single",
        "costs",
        "3",
        "euros",
        ".",
        "fares",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return little_bert(folder, tokenizer)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "fares.md").write_text("# Fares\n\nA single costs 3 euros.\n")
    (folder / "dogs.txt").write_text("Dogs travel on deck.")
    (folder / "empty.txt").write_text("")
    return folder


def index_exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["index", *map(str, arguments)])
    return int(stopped.value.code or 0)


def test_index_build_update_search_and_check(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    index = tmp_path / "index"
    options = ("--documents", documents, "--embedder", embedder)
    assert index_exit_code("build", index, *options, "--json") == 0
    built = json.loads(capsys.readouterr().out)
    counts = (
        "found",
        "indexed",
        "added",
        "changed",
        "removed",
        "unchanged",
        "chunks",
        "embedded",
        "generation",
    )
    assert [built[name] for name in counts] == [3, 2, 2, 0, 0, 0, 2, 2, 1]
    assert (built["schema"], built["store"], [s["path"] for s in built["skipped"]]) == (
        1,
        "flat",
        ["empty.txt"],
    )
    (documents / "dogs.txt").write_text("Dogs travel on deck. A single costs 3 euros.")
    assert index_exit_code("update", index, *options) == 0
    output = capsys.readouterr().out
    assert "3 documents found: 0 added, 1 changed, 1 unchanged, 1 skipped; 0 removed" in output
    assert "2 passages, 1 embedded, generation 2" in output
    assert (
        index_exit_code(
            "search", index, "Dogs travel on deck. A single costs 3 euros.", "--embedder", embedder, "--json"
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["hits"][0]["doc"] == "dogs.txt"
    assert index_exit_code("check", index, "--json") == 0
    assert json.loads(capsys.readouterr().out)["generations"] == [1, 2]


def test_index_check_reports_damage_and_repair_fixes_it(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    index = tmp_path / "index"
    assert index_exit_code("build", index, "--documents", documents, "--embedder", embedder) == 0
    (index / "gen-000001" / "vectors.faiss").write_bytes(b"damage")
    capsys.readouterr()
    assert index_exit_code("check", index) == 3
    output = capsys.readouterr().err
    assert "vectors.faiss has 6 bytes" in output
    assert "index check" in output
    assert "--repair" in output
    assert index_exit_code("check", index, "--repair", "--embedder", embedder) == 0
    output = capsys.readouterr().out
    assert "mended: " in output
    assert "embedded: 0" in output
    assert (
        index_exit_code(
            "build", index, "--documents", documents, "--store", "pinecone", "--embedder", embedder
        )
        == 3
    )
    assert "auto, flat, ivf" in capsys.readouterr().err


def test_failed_build_leaves_no_folder(tmp_path: Path, embedder: Path, capsys: Capture) -> None:
    assert (
        index_exit_code(
            "build", tmp_path / "new" / "index", "--documents", tmp_path / "none", "--embedder", embedder
        )
        == 3
    )
    assert not (tmp_path / "new").exists()
    assert index_exit_code("update", tmp_path / "none", "--documents", tmp_path) == 3
    assert "build it first" in capsys.readouterr().err


def test_purge_names_adapters_trained_on_removed_documents(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    index = run / "index"
    (run / "adapters" / "lora-s0").mkdir(parents=True)
    (run / "adapters" / "hybrid-s0").mkdir()
    examples = run / "examples.jsonl"
    rows = [{"messages": [], "meta": {"doc_id": name}} for name in ("dogs.txt", "fares.md")]
    examples.write_text("\n".join(map(json.dumps, rows)))
    steps = [
        {"kind": "train", "arm": "lora", "rows": "plain"},
        {"kind": "train", "arm": "hybrid", "rows": "retrieval"},
    ]
    (run / "plan.yaml").write_text(yaml.safe_dump({"data": {"examples": str(examples)}, "steps": steps}))
    options = ("--documents", documents, "--embedder", embedder)
    assert index_exit_code("build", index, *options) == 0
    (documents / "dogs.txt").unlink()
    capsys.readouterr()
    assert index_exit_code("update", index, *options, "--purge") == 0
    notes = capsys.readouterr().err
    assert "the adapter lora-s0 was trained on removed documents (dogs.txt)" in notes
    lines = adapters_knowing_removed(index, ["another.md"])
    assert "hybrid-s0 was trained with passages of this index" in lines[0]
    assert "lora-s0 was trained on rows of other documents only" in lines[1]
    examples.write_text('{"messages": []}')
    assert "for no row" in adapters_knowing_removed(index, ["dogs.txt"])[1]
    examples.write_text('{"messages": []}\n{"meta": {"doc_id": "fares.md"}}')
    assert "cannot be known: not for every row" in adapters_knowing_removed(index, ["dogs.txt"])[1]
    assert (
        adapters_knowing_removed(index, [])
        == adapters_knowing_removed(tmp_path / "elsewhere" / "index", ["dogs.txt"])
        == []
    )


def test_watch_prints_changes_until_interrupted(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    index = tmp_path / "index"
    assert index_exit_code("build", index, "--documents", documents, "--embedder", embedder) == 0
    capsys.readouterr()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt
        (documents / "new.txt").write_text("A single costs 3 euros on deck.")

    with pytest.raises(KeyboardInterrupt):
        index_build.watch_index(index, documents, str(embedder), 0.5, False, False, sleep)
    captured = capsys.readouterr()
    assert "generation 2: 1 added, 0 changed, 0 removed; 1 passage embedded" in captured.out
    assert captured.out.count("\n") == 1
    assert slept == [0.5, 0.5]


def test_index_remembers_its_documents(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    index = run / "index"
    assert index_exit_code("build", index, "--documents", documents, "--embedder", embedder) == 0
    (documents / "cats.txt").write_text("Cats travel in a basket.")
    capsys.readouterr()
    assert index_exit_code("update", index, "--embedder", embedder) == 0
    output = capsys.readouterr()
    assert "4 documents found: 1 added" in output.out
    assert f"documents: {documents}, as last time" in output.err
    # a run folder is taken for its index
    (run / "events.jsonl").touch()
    (run / "plan.yaml").write_text(
        yaml.safe_dump(
            {
                "schema": 1,
                "name": "p",
                "choice": "rag",
                "model": {"name": "m"},
                "data": {"documents": str(documents)},
                "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
                "weights": {"style": 1},
            }
        )
    )
    assert index_exit_code("check", run, "--json") == 0
    assert index_exit_code("update", run, "--embedder", embedder) == 0
    assert "0 added, 0 changed" in capsys.readouterr().out


def test_index_whose_documents_are_gone_asks_for_them(
    tmp_path: Path, documents: Path, embedder: Path, capsys: Capture
) -> None:
    index = tmp_path / "index"
    assert index_exit_code("build", index, "--documents", documents, "--embedder", embedder) == 0
    documents.rename(tmp_path / "moved")
    capsys.readouterr()
    assert index_exit_code("update", index, "--embedder", embedder) == 2
    assert f"{documents}, no longer exist" in (message := capsys.readouterr().err)
    assert "--documents" in message
    (index / "sources.json").unlink()
    assert index_exit_code("tune", index, "--embedder", embedder) == 2
    assert "does not record where its documents are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build",), "name one index"),
        (("build", "index", "--to", "postgresql://h/d"), "name one index"),
        (("build", "--to", "index"), "is no URL"),
        (("build", "--to", "mysql://h/d"), "no backend for an index at mysql://"),
        (("build", "--to", "postgresql://a:secret@127.0.0.1:9/d"), "must not contain a password"),
        (
            ("build", "--store", "ivf", "--to", "postgresql://a@127.0.0.1:9/d"),
            "--store ivf is for an index folder",
        ),
    ],
)
def test_unusable_targets_are_refused(
    arguments: tuple[str, ...], words: str, documents: Path, embedder: Path, capsys: Capture
) -> None:
    verb, *rest = arguments
    assert index_exit_code(verb, *rest, "--documents", documents, "--embedder", embedder) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "secret" not in err


def test_verbs_for_folders_refuse_a_url(capsys: Capture) -> None:
    assert index_exit_code("tune", "postgresql://a@127.0.0.1:9/d") == 2
    assert "this needs an index folder" in capsys.readouterr().err
    assert index_exit_code("update", "postgresql://a@127.0.0.1:9/d") == 2
    assert "does not record where its documents are" in capsys.readouterr().err


@pytest.mark.engines
def test_an_index_in_a_database_is_built_searched_updated_and_checked(
    documents: Path,
    embedder: Path,
    postgres: PostgresServer,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    url, with_embedder = postgres.url("cli"), ("--embedder", embedder)

    def output(*arguments: object) -> str:
        assert index_exit_code(*arguments) == 0
        return capsys.readouterr().out

    built = output("build", "--to", url, "--documents", documents, *with_embedder)
    assert "3 documents found: 2 added, 0 changed, 0 unchanged, 1 skipped" in built
    assert "generation 1" in built
    assert url in built
    shown = output(
        "search", url, "what does a single cost", "--where", "doc=fares.md", "--json", *with_embedder
    )
    assert [hit["doc"] for hit in json.loads(shown)["hits"]] == ["fares.md"]
    (documents / "dogs.txt").write_text("Dogs travel on deck. A single costs 3 euros.")
    report = json.loads(output("update", "--to", url, "--json", *with_embedder))
    assert (report["changed"], report["generation"]) == (1, 2)
    assert "documents: 2" in output("check", url)
