"""plan, whatif, explain and doctor on the command line, without a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runners.plan.schema import METHODS, read_plan
from tests.support.limits import children_seconds

SMALL = ("--model", "smollm2-135m-instruct")


def files(task_files: Any) -> list[object]:
    """Return the flags of the example files."""
    return [
        "--documents",
        task_files.documents,
        "--examples",
        task_files.examples,
        "--questions",
        task_files.questions,
    ]


def test_plan_writes_plan_and_prints_reasons(tunewise: Any, task_files: Any) -> None:
    """Recommendation on stdout, the written file on stderr; a plan that reads back."""
    given = ("--set", "behaviour_gap=high", "--prompt", task_files.prompt, *SMALL)
    done = tunewise("plan", *files(task_files), *given)
    assert done.returncode == 0, done.stderr
    assert "hybrid" in done.stdout
    assert "KN001" in done.stdout
    assert "wrote plan.yaml" in done.stderr
    assert read_plan(task_files.folder / "plan.yaml").choice == "hybrid"


def test_plan_json_is_alone_on_stdout(tunewise: Any, task_files: Any) -> None:
    """One object, everything else on stderr, and the same twice; the free space of the disk is not: others write to it."""
    given = ("--set", "behaviour_gap=high", "--set", "disk_gib=60", *SMALL)
    first, second = (tunewise("plan", *files(task_files), *given, "--json") for _ in range(2))
    assert json.loads(first.stdout)["choice"] == "hybrid"
    assert first.stdout == second.stdout
    assert "saved as plan.yaml.bak" in second.stderr


def test_plan_with_answers_takes_little_processor_time(tunewise: Any, tmp_path: Path) -> None:
    """No terminal, no prompt, no plan; 3.3 times what ``--version`` takes, and 11 with an import of torch."""
    path = tmp_path / "a.yaml"
    path.write_text("task_needs_facts: new\nfacts_change: fast\nbehaviour_gap: none\n", "utf-8")
    done = tunewise("plan", "--answers", path, "--json")
    assert json.loads(done.stdout)["choice"] == "rag"
    assert "no plan was written" in done.stderr
    assert not (tmp_path / "plan.yaml").exists()

    def seconds(*arguments: object) -> float:
        before = children_seconds()
        line = [sys.executable, "-c", "from advisor.cli import main; main()", *map(str, arguments)]
        subprocess.run(line, cwd=tmp_path, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        return children_seconds() - before

    assert seconds("plan", "--answers", path, "--json") < 6 * seconds("--version")


def test_plan_that_only_lacks_files_is_written(tunewise: Any, task_files: Any) -> None:
    """It names what is missing; a run refuses it in two lines, until it is planned again with the files."""
    flags = ("--set", "task_needs_facts=new", "--set", "behaviour_gap=none", "--out", "plan.yaml")
    written = tunewise("plan", *flags, "--json")
    lack = "the plan lacks files: data.documents, data.questions"
    assert json.loads(written.stdout)["cannot_run"] == [lack]
    for flag in ((), ("--dry-run",)):
        done = tunewise("run", "plan.yaml", *flag)
        assert done.returncode == 3
        assert lack in done.stderr
        assert "--documents PATH --questions PATH" in done.stderr
        assert len(done.stderr.splitlines()) == 2
    again = tunewise("plan", "--answers", "plan.yaml", *files(task_files), "--out", "plan.yaml", "--json")
    assert json.loads(again.stdout)["cannot_run"] == []
    assert read_plan(task_files.folder / "plan.yaml").answers["behaviour_gap"].value == "none"


def test_model_that_is_no_folder_is_refused_first(tunewise: Any, task_files: Any) -> None:
    """A GGUF file: by the plan, the run and the dry run with one text, before a speed is measured or a row is read."""
    (task_files.folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    sized = ("--model", "model.gguf", "--set", "model_params_b=0.5", "--set", "behaviour_gap=high")
    written = tunewise("plan", *files(task_files), *sized, "--out", "plan.yaml", "--json")
    assert json.loads(written.stdout)["cannot_run"] == ["model model.gguf is a file"]
    for flag in ((), ("--dry-run",)):
        done = tunewise("run", "plan.yaml", *flag)
        assert done.returncode == 3
        assert done.stderr.splitlines()[0] == "tunewise: model model.gguf is a file"
        assert "openai:NAME@URL" in done.stderr
        assert not (task_files.folder / "runs").exists()


def test_plan_without_input_exits_2(tunewise: Any) -> None:
    """Exit 2, for `plan` and for `tunewise` alone."""
    done = tunewise("plan")
    assert done.returncode == 2
    assert "--documents" in done.stderr
    alone = tunewise()
    assert alone.returncode == 2
    assert "Usage" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--documents", "nowhere"], "the documents path nowhere does not exist"),
        (["--examples", "nowhere.jsonl"], "the examples path"),
        (["--answers", "nowhere.yaml"], "no answers file"),
        (["--set", "must_site=yes"], "did you mean must_cite"),
        (["--set", "must_cite=maybe"], "must_cite cannot be 'maybe'"),
        (["--set", "must_cite"], "key=value"),
    ],
)
def test_plan_bad_input_exits_3(tunewise: Any, arguments: list[str], message: str) -> None:
    """One line of what, one of what next, no traceback."""
    done = tunewise("plan", *arguments)
    assert done.returncode == 3
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_rejects_empty_and_broken_data(tunewise: Any, task_files: Any, tmp_path: Path) -> None:
    """An empty folder, a broken line, examples without answers, leaking questions."""
    (tmp_path / "empty").mkdir()
    assert "no document" in refused(tunewise, "--documents", tmp_path / "empty")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "completion": "b"}\n{"prompt":\n', "utf-8")
    assert "broken.jsonl:2" in refused(tunewise, "--examples", broken)
    broken.write_text('{"messages": [{"role": "user", "content": "a"}]}\n' * 3, "utf-8")
    assert "no answer" in refused(tunewise, "--examples", broken)
    task_files.questions.write_text(json.dumps({"question": "When does boat 3 sail?"}), "utf-8")
    assert "examples.jsonl:4" in refused(
        tunewise, "--examples", task_files.examples, "--questions", task_files.questions
    )


def refused(tunewise: Any, *arguments: object) -> str:
    """Run plan, require exit 3, return stderr."""
    done = tunewise("plan", *arguments)
    assert done.returncode == 3, done.stderr
    return str(done.stderr)


def test_plan_schema_is_printed(tunewise: Any) -> None:
    """The plan's JSON Schema, with every key described or typed."""
    schema = json.loads(tunewise("plan", "--schema").stdout)
    assert {"schema", "name", "steps", "checks", "gate"} <= set(schema["properties"])


def test_whatif_shows_difference(tunewise: Any, task_files: Any) -> None:
    """Before and after; nothing is written."""
    tunewise("plan", *files(task_files), "--set", "behaviour_gap=high", *SMALL)
    before = (task_files.folder / "plan.yaml").read_bytes()
    done = tunewise("whatif", "plan.yaml", "--set", "behaviour_gap=none")
    assert done.returncode == 0, done.stderr
    assert "- hybrid" in done.stdout
    data = json.loads(tunewise("whatif", "plan.yaml", "--set", "behaviour_gap=none", "--json").stdout)
    assert data["before"]["choice"] == "hybrid"
    assert data["after"]["choice"] != "hybrid"
    assert (task_files.folder / "plan.yaml").read_bytes() == before


def test_plan_from_own_answers_gives_same_recommendation(tunewise: Any, task_files: Any) -> None:
    """A plan's own answers give its own recommendation."""
    tunewise("plan", *files(task_files), "--set", "behaviour_gap=high")
    again = tunewise("plan", "--answers", "plan.yaml", "--json", "--out", "again.yaml")
    one, two = (read_plan(task_files.folder / name) for name in ("plan.yaml", "again.yaml"))
    assert again.returncode == 0
    assert one.steps == two.steps
    assert one.predicted == two.predicted != {}


def test_plan_is_short_and_its_forecast_is_beside_it(tunewise: Any, tmp_path: Path) -> None:
    """15 documents, 60 pairs, 40 questions: at most 120 lines, no null, no prediction; it is backed up with the plan."""
    (tmp_path / "desk").mkdir()
    for number in range(15):
        (tmp_path / "desk" / f"card{number}.md").write_text(
            f"# Card {number}\n\nPaper {number} takes {number + 3} g ink.\n"
        )
    pairs = [
        {
            "prompt": f"How much ink takes paper {n}, {n}?",
            "completion": f"Paper {n} takes {n + 3} g. Shop {n % 3}.",
        }
        for n in range(60)
    ]
    write_lines(tmp_path / "pairs.jsonl", pairs)
    write_lines(
        tmp_path / "asked.jsonl",
        [{"question": f"Is paper {n} in stock {n}?", "answers": ["yes"]} for n in range(40)],
    )
    known = [
        ("must_cite", "yes"),
        ("wrong_answer_cost", "high"),
        ("behaviour_gap", "high"),
        ("facts_change", "slow"),
    ]
    sets = [part for key, value in known for part in ("--set", f"{key}={value}")]
    data = ["--documents", "desk", "--examples", "pairs.jsonl", "--questions", "asked.jsonl"]
    for _ in range(2):
        done = tunewise(
            "plan",
            *data,
            *sets,
            "--set",
            "latency_p95_ms=unknown",
            "--prompt",
            "Answer as the print shop does.",
        )
        assert done.returncode == 0, done.stderr
    text = (tmp_path / "plan.yaml").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert "null" not in text
    assert "predicted" not in text
    assert "  must_cite: {value: true, source: flag}\n" in text
    assert "latency_p95_ms" not in text
    assert json.loads((tmp_path / "plan.forecast.json").read_text("utf-8"))["predicted"]["ranked"]
    assert (tmp_path / "plan.forecast.json.bak").read_bytes() == (
        tmp_path / "plan.forecast.json"
    ).read_bytes()


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_plan_makes_no_folders_and_notices_first_where_it_cannot_write(
    tunewise: Any, task_files: Any
) -> None:
    for flag in ("--out", "--record"):
        done = tunewise("plan", *files(task_files), flag, "no/such/plan.yaml")
        assert done.returncode == 2
        assert f"{flag} no/such/plan.yaml: there is no folder no/such" in done.stderr
        assert not (task_files.folder / "no").exists()
        assert done.stdout == ""
    folder = tunewise("plan", *files(task_files), "--out", "documents")
    assert (folder.returncode, folder.stdout) == (2, "")
    assert "--out documents is a folder" in folder.stderr
    unwritable = tunewise("plan", *files(task_files), "--out", "/proc/plan.yaml")
    assert (unwritable.returncode, unwritable.stdout) == (4, "")
    assert "cannot write /proc/plan.yaml" in unwritable.stderr


def test_plan_names_references_that_fail_and_run_stops_at_them(
    tunewise: Any, task_files: Any, make_rows: Any
) -> None:
    rows = [{"question": f"How many berths has pier {n}?", "answers": [str(n + 3)]} for n in range(12)]
    for n in range(4):
        rows[n]["reference"] = f"Pier {n} has {n + 30} berths."
    make_rows(task_files.questions, rows)
    done = tunewise("plan", *files(task_files), "--json")
    assert [each["line"] for each in json.loads(done.stdout)["failing_gold"]] == [1, 2, 3, 4]
    assert "4 of 12 questions have a reference that would not count as a right answer" in done.stderr
    assert "it lacks '3'" in done.stderr
    assert "(and 1 more)" in done.stderr
    stopped = tunewise("run", "plan.yaml", "--out", "tried")
    assert stopped.returncode == 3
    assert "4 of 12 questions have a reference" in stopped.stderr
    assert "--accept-failing-gold" in stopped.stderr
    assert not (task_files.folder / "tried").exists()


def test_run_makes_only_its_own_folder(tunewise: Any, task_files: Any) -> None:
    tunewise("plan", *files(task_files))
    done = tunewise("run", "plan.yaml", "--out", "no/such/run")
    assert done.returncode == 2
    assert "--out no/such/run: there is no folder no/such" in done.stderr
    assert not (task_files.folder / "no").exists()


def test_explain_and_whatif_read_the_plan_of_a_run(tunewise: Any, task_files: Any) -> None:
    """It is in another folder than the original plan and names its files in full; a run folder works too."""
    from runners.plan.schema import read_plan
    from runners.run_folder import RunFolder

    tunewise("plan", *files(task_files), "--set", "behaviour_gap=high", "--set", "prompt=prompt.txt", *SMALL)
    run = RunFolder.create(
        task_files.folder / "elsewhere" / "run", read_plan(task_files.folder / "plan.yaml")
    )
    run.write({"event": "run.start"})
    data = json.loads(tunewise("explain", run.path / "plan.yaml", "--json").stdout)
    for path in (task_files.folder / "plan.yaml", run.path):
        assert json.loads(tunewise("explain", path, "--json").stdout)["ranked"] == data["ranked"]
    changed = tunewise("whatif", run.path, "--set", "behaviour_gap=none")
    assert changed.returncode == 0, changed.stderr
    assert "- hybrid" in changed.stdout


def test_explain_prints_every_kind_of_topic(tunewise: Any, task_files: Any) -> None:
    """Rules, blockers, methods, plans, the whole list; a near miss gets a suggestion."""
    assert "search index can" in tunewise("explain", "kn002").stdout
    assert "BL002" in tunewise("explain", "BL002").stdout
    assert "must beat every" in " ".join(tunewise("explain", "hybrid").stdout.split())
    everything = json.loads(tunewise("explain", "--json").stdout)
    assert len(everything["rules"]) > 25
    tunewise("plan", *files(task_files), "--set", "behaviour_gap=high")
    assert "Does not apply" in tunewise("explain", "plan.yaml").stdout
    miss = tunewise("explain", "hybird")
    assert miss.returncode == 3
    assert "did you mean hybrid" in miss.stderr


def test_doctor_prints_machine_and_methods(tunewise: Any, tmp_path: Path) -> None:
    """Warnings exit 0; JSON holds machine, packages, settings, methods."""
    done = tunewise("doctor", "--json", TUNEWISE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["settings"]["TUNEWISE_CACHE"] == str(tmp_path / "cache")
    assert {row["method"] for row in data["methods"]} == set(METHODS)
    assert data["machine"]["cpu_cores"]["value"] >= 1
    large = json.loads(tunewise("doctor", "--json", "--model", "llama-3.1-70b-instruct").stdout)
    full = next(row for row in large["methods"] if row["method"] == "full")
    assert not full["possible"]
    assert tunewise("doctor").returncode == 0


def test_plan_says_at_once_what_run_refuses(
    tunewise_each: Any, task_files: Any, make_rows: Any, tmp_path: Path
) -> None:
    """No questions, one question, gold documents that do not exist, other columns: no line to run it, and what to add."""
    rows = [json.loads(line) for line in task_files.questions.read_text("utf-8").splitlines()]
    make_rows(tmp_path / "one.jsonl", rows[:1])
    make_rows(tmp_path / "other.jsonl", [{**row, "doc_id": f"d{n}"} for n, row in enumerate(rows)])
    make_rows(
        tmp_path / "prefix.jsonl", [{**row, "doc_id": f"files/pier{n % 5}.md"} for n, row in enumerate(rows)]
    )
    make_rows(tmp_path / "keys.jsonl", [{"frage": "Was?", "antwort": "Das."}])
    make_rows(tmp_path / "empty.jsonl", [])
    make_rows(tmp_path / "pairs.jsonl", [{"frage": f"Was {n}?", "antwort": f"Das {n}."} for n in range(30)])
    (tmp_path / "answers.yaml").write_text("columns: {prompt: frage, reply: antwort}\n", "utf-8")
    none, one, other, prefix, keys, empty, unknown, named, mapped, refused, as_json = tunewise_each(
        "plan --yes --documents documents --out none.yaml",
        "plan --yes --documents documents --questions one.jsonl",
        "plan --yes --documents documents --questions other.jsonl --out other.yaml",
        "plan --yes --documents documents --questions prefix.jsonl",
        "plan --yes --questions keys.jsonl",
        "plan --yes --questions empty.jsonl",
        "plan --yes --examples pairs.jsonl",
        "plan --yes --examples pairs.jsonl --questions questions.jsonl --columns prompt=frage,reply=antwort",
        "plan --yes --examples pairs.jsonl --questions questions.jsonl --answers answers.yaml",
        "run none.yaml --dry-run",
        "plan --documents documents --json --out json.yaml",
    )
    for done, text in ((none, "there are no test questions"), (one, "there is one test question")):
        assert done.code == 0
        assert "it cannot be run as it is: the plan measures arms, but " + text in done.err
        assert "give a file of questions" in done.err
        assert "run it with" not in done.err
    assert refused.code == 3
    assert "there are no test questions" in refused.err
    assert json.loads(as_json.out)["cannot_run"] == [
        "the plan measures arms, but there are no test questions"
    ]
    assert other.code == 3
    assert "none of 12 doc_ids is among the documents" in " ".join(other.err.split())
    assert not (tmp_path / "other.yaml").exists()
    assert prefix.code == 0
    assert "5 match without 'files/'" in " ".join(prefix.err.split())
    assert "run it with" in prefix.err
    assert keys.code == 3
    assert "it has the keys frage, antwort" in keys.err
    assert "rename the keys: question" in " ".join(keys.err.split())
    assert empty.code == 3
    assert "one object a line" in empty.err
    assert unknown.code == 3
    assert "--columns prompt=frage,reply=antwort" in " ".join(unknown.err.split())
    for done in (named, mapped):
        assert done.code == 0, done.err
        assert "run it with" in done.err
    columns = read_plan(tmp_path / "plan.yaml").data.columns
    assert columns is not None
    assert dict(columns) == {"prompt": "frage", "reply": "antwort"}


def test_plan_on_a_model_that_is_only_on_the_hub_says_how_to_get_it(
    tunewise_each: Any, task_files: Any, tmp_path: Path
) -> None:
    """Every verb knows the short names of the catalogue, and refuses with exit code 4 where the hub is not allowed."""
    away = {"TUNEWISE_ALLOW_HUB": "", "HF_HUB_CACHE": str(tmp_path / "hub")}
    planned, run, pulled, trained, sized, wrong = tunewise_each(
        "plan --yes --questions questions.jsonl --model qwen3-0.6b",
        "run plan.yaml --out run",
        "models pull gemma-2-2b-it",
        "train --examples examples.jsonl --model smollm2-360m-instruct --out adapter",
        "estimate --model granite-3.3-2b-instruct --gpu T4 --method lora",
        "models pull gema-2-2b-it",
        **away,
    )
    assert planned.code == 0
    assert "qwen3-0.6b (Qwen/Qwen3-0.6B, 1.2 GB) is not on this machine, only on the hub" in planned.err
    assert "first get it with: tunewise models pull qwen3-0.6b --allow-hub" in planned.err
    for refused, hub in (
        (run, "Qwen/Qwen3-0.6B"),
        (pulled, "google/gemma-2-2b-it"),
        (trained, "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ):
        assert refused.code == 4, refused.err
        assert f"({hub}) is only on the hub, which is not allowed" in refused.err
        assert "--allow-hub; or set TUNEWISE_ALLOW_HUB=1" in refused.err
    assert sized.code == 0
    assert wrong.code == 3
    assert "did you mean 'gemma-2-2b-it'?" in wrong.err


def test_plan_fails_early_where_it_cannot_be_written(
    tunewise_each: Any, task_files: Any, tmp_path: Path
) -> None:
    """Before anything is read; no folder is made on the way."""
    (tmp_path / "file").write_text("x", "utf-8")
    below, folder, made = tunewise_each(
        "plan --yes --questions missing.jsonl --out file/plan.yaml",
        "plan --yes --questions missing.jsonl --out documents",
        "plan --yes --questions questions.jsonl --out new/deep/plan.yaml",
    )
    assert below.code == 2
    assert "there is no folder file" in below.err
    assert folder.code == 2
    assert "is a folder" in folder.err
    assert made.code == 2
    assert "there is no folder new/deep" in made.err
    assert not (tmp_path / "new").exists()
