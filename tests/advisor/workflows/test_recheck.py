"""`tunewise recheck` on a finished run: what is asked again, what is an alarm, the reports, and what is refused.

The answering model is the reader of benchmarks/recheck.py: it speaks HTTP, and answers with the gold that it is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from advisor import cli, output
from benchmarks.recheck import SYSTEM, Base, make_run, write_rows
from rag.version import __version__
from runners.recheck.recheck import RecheckRequest, recheck
from runners.recheck.workspace import accept_recheck
from tests.support.command_server import CommandServer
from tests.support.limits import HANG_S

Tunewise = Callable[..., tuple[int, str, str]]
NAMES = ("Amber", "Birch", "Copper", "Dunlin", "Elder", "Falcon", "Garnet", "Heron")
COUNT = 40


def documents(wrong: int = 0) -> list[dict[str, Any]]:
    """Return the piers; the first ones have other numbers of berths."""
    return [
        {
            "id": f"pier{n:02}",
            "title": f"{NAMES[n % 8]} Pier {n}",
            "text": f"{NAMES[n % 8]} Pier {n} has {(900 if n < wrong else 100) + n} berths for visitors. It is old.",
        }
        for n in range(COUNT)
    ]


def questions() -> list[dict[str, Any]]:
    """Return a question about each pier."""
    return [
        {
            "id": f"q{n}",
            "question": f"How many berths has {NAMES[n % 8]} Pier {n}?",
            "answers": [str(100 + n)],
            "doc_id": f"pier{n:02}",
        }
        for n in range(COUNT)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A finished run with two arms; the reader's server lives as long as the process."""
    return make_run("piers", documents(), questions(), tmp_path_factory.mktemp("recheck"))


@pytest.fixture
def run(base: Base, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(base.run, tmp_path / "run"))


@pytest.fixture
def tunewise(capsys: pytest.CaptureFixture[str]) -> Tunewise:
    """Run a verb in this process; return exit code, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        finally:
            output.configure_output()
        printed = capsys.readouterr()
        return int(code), printed.out, printed.err

    return call


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of every file of a run but those of its rechecks and its lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "rechecks" not in path.parts and not path.name.startswith(".writer")
    }


def changed_plan(base: Base, folder: Path, **values: Any) -> Path:
    """Write the run's plan with other values; those of `index` go into its index step."""
    plan = json.loads(json.dumps(base.plan))
    plan["steps"][0] |= values.pop("index", {})
    file = folder / "other.yaml"
    file.write_text(json.dumps(plan | values), "utf-8")
    return file


def test_without_changes_nothing_is_asked_and_the_run_stays(
    base: Base, run: Path, tunewise: Tunewise
) -> None:
    before, asked = hashes(run), base.server.asked
    code, out, _ = tunewise("recheck", run, "--all-arms", "--json")
    data = json.loads(out)
    assert (code, data["schema"], data["outcome"], data["changes"]) == (0, 1, "unchanged", [])
    assert base.server.asked == asked
    assert {arm["arm"]: arm["asked_again"] for arm in data["arms"]} == {"prompting": 0, "rag": 0}
    assert hashes(run) == before
    assert tunewise("report", run)[0] == 0, "a run with rechecks is still whole"


@pytest.mark.parametrize("change", ["re-ordered", "renamed", "blank lines", "one file each"])
def test_the_same_passages_are_not_asked_again(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path, change: str
) -> None:
    rows = documents()
    target = tmp_path / "documents.jsonl"
    if change == "re-ordered":
        write_rows(target, rows[::-1])
    elif change == "renamed":
        write_rows(target, [{**row, "id": f"moved/{row['id']}"} for row in rows])
    elif change == "blank lines":
        write_rows(target, [{**row, "text": f"\n\n{row['text']}\n"} for row in rows])
    else:
        target = tmp_path / "documents"
        target.mkdir()
        for row in rows:
            text = f"---\ntitle: {row['title']}\n---\n{row['text']}\n"
            (target / f"{row['id']}.md").write_text(text, "utf-8")
    asked = base.server.asked
    code, out, err = tunewise("recheck", run, "--documents", target, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert data["outcome"] == "unchanged"
    assert base.server.asked == asked
    assert data["questions"]["needs_new_gold"] == 0


def test_changed_facts_need_new_gold_and_are_no_regression(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path
) -> None:
    changed = write_rows(tmp_path / "documents.jsonl", documents(wrong=12))
    asked = base.server.asked
    code, out, _ = tunewise("recheck", run, "--documents", changed, "--json")
    data = json.loads(out)
    assert (code, data["outcome"]) == (0, "needs new gold")
    assert {change["kind"] for change in data["changes"]} == {"documents"}
    lost = {row["id"] for row in data["needs_new_gold"]}
    assert lost == {f"q{n}" for n in range(12)} & {r["id"] for r in answers(run)}
    assert "no longer states" in data["needs_new_gold"][0]["reason"]
    again = next(arm["asked_again"] for arm in data["arms"] if arm["arm"] == "rag")
    assert base.server.asked - asked == again < len(answers(run))
    code, out, err = tunewise("recheck", run, "--documents", changed, "--count-lost-gold", "--json")
    data = json.loads(out)
    assert (code, data["outcome"]) == (5, "regression")
    assert "it became clearly worse: rag answers" in err
    assert all("no longer states" in row["lost_gold"] for row in data["lost_answers"])
    page = (Path(data["folder"]) / "recheck.md").read_text("utf-8")
    assert page.count("(gold outdated: its document pier") == len(data["lost_answers"])


def answers(run: Path) -> list[dict[str, Any]]:
    """Return the run's answers of the arm that retrieves."""
    lines = (run / "trial" / "answers.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["arm"] == "rag"]


@pytest.mark.parametrize("gone", [False, True])
def test_index_of_the_run_was_updated_since(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path, gone: bool
) -> None:
    """As docs/update-documents.md says: the answers of the trial are of the generation before."""
    changed = write_rows(tmp_path / "documents.jsonl", documents(wrong=5))
    embedder = base.plan["embedder"]["name"]
    code, _, err = tunewise("index", "update", run / "index", "--documents", changed, "--embedder", embedder)
    assert code == 0, err
    if gone:
        shutil.rmtree(run / "index" / "gen-000001")
    data = json.loads(tunewise("recheck", run, "--documents", changed, "--json")[1])
    assert "was updated since it was measured" in data["changes"][0]["text"]
    lost = {row["id"] for row in data["needs_new_gold"]}
    assert lost == {f"q{n}" for n in range(5)} & {row["id"] for row in answers(run)}


def test_most_documents_gone_is_bad_input(run: Path, tunewise: Tunewise, tmp_path: Path) -> None:
    left = write_rows(tmp_path / "documents.jsonl", documents()[:6])
    code, _, err = tunewise("recheck", run, "--documents", left)
    assert code == 3
    assert "no longer state the answers" in err
    assert list((run / "rechecks").glob("*/recheck.md")), "the reports are written all the same"


def test_regression_of_a_prompt_in_all_reports(run: Path, tunewise: Tunewise, tmp_path: Path) -> None:
    junit, markdown = tmp_path / "j.xml", tmp_path / "m.md"
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Sing.\n", "utf-8")
    flags = ("--prompt", prompt, "--junit", junit, "--markdown", markdown)
    code, out, err = tunewise("recheck", run, *flags, "--json")
    data = json.loads(out)
    assert (code, data["outcome"]) == (5, "regression")
    assert [change["kind"] for change in data["changes"]] == ["prompt"]
    assert err.count("\n") <= 3 + err.count("evaluate:") * 2
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    cases = {(case.get("classname"), case.get("name")): case for case in suite.iter("testcase")}
    right = cases["piers.rag", "right"]
    failure = right.find("failure")
    assert failure is not None
    assert str(failure.get("message")).startswith("rag answers ")
    assert int(str(suite.get("failures"))) == len(list(suite.iter("failure"))) >= 1
    assert int(str(suite.get("tests"))) == len(cases)
    text = markdown.read_text("utf-8")
    assert text.startswith("## tunewise recheck, regression: piers")
    assert "**REGRESSION: rag answers" in text
    assert "answers that were right and are not" in text
    code, out, _ = tunewise("recheck", run, *flags, "--format", "json")
    assert code == 5
    assert json.loads(out)["outcome"] == "regression"
    code, out, _ = tunewise("recheck", run, *flags)
    assert code == 5
    assert out.startswith("REGRESSION: rag answers")


def test_margin_accepts_a_loss(run: Path, tunewise: Tunewise) -> None:
    assert tunewise("recheck", run, "--prompt", "Sing.", "--margin", "0.9")[0] == 0


def test_settings_and_model_are_asked_again(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path
) -> None:
    plan = changed_plan(base, tmp_path, index={"k": 1}, max_new_tokens=47)
    code, out, _ = tunewise("recheck", run, "--plan", plan, "--json")
    data = json.loads(out)
    assert code == 0
    assert data["changes"][0]["kind"] == "settings"
    assert {"steps[0].k", "max_new_tokens"} <= set(data["changes"][0]["text"].split(", "))
    assert data["arms"][0]["asked_again"] == len(answers(run)), "fewer passages are other chats"
    shorter = changed_plan(base, tmp_path, max_new_tokens=30)
    data = json.loads(tunewise("recheck", run, "--plan", shorter, "--json")[1])
    assert data["arms"][0]["asked_again"] == 0, "answers that ended before the new limit are the same"
    code, out, _ = tunewise("recheck", run, "--model", f"openai:reader-10@{base.server.url}", "--json")
    data = json.loads(out)
    assert (code, data["outcome"]) == (5, "regression")
    assert "reader-10" in data["changes"][0]["text"]


def test_other_settings_of_the_index_build_it_anew(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path
) -> None:
    plan = changed_plan(base, tmp_path, index={"max_chunk_tokens": 16})
    code, out, err = tunewise("recheck", run, "--plan", plan, "--json", "--out", tmp_path / "kept")
    assert code in (0, 5), err
    assert json.loads(out)["changes"][0]["kind"] == "settings"
    assert (tmp_path / "kept" / "recheck.json").is_file()
    assert not (tmp_path / "kept" / "index").exists(), "only an accepted recheck keeps its index"
    assert not (run / "rechecks").exists()


def test_corrected_gold_is_no_regression(base: Base, run: Path, tunewise: Tunewise, tmp_path: Path) -> None:
    rows = questions()
    for row in rows[:20]:
        row["answers"] = ["no number at all"]
    rows = rows[:-1]
    file = write_rows(tmp_path / "questions.jsonl", rows)
    data = json.loads(tunewise("recheck", run, "--questions", file, "--json")[1])
    assert data["outcome"] == "unchanged"
    assert data["changes"][0]["kind"] == "questions"
    assert data["questions"]["missing"] in (0, 1)


@pytest.mark.parametrize(("made", "code", "outcome"), [(COUNT, 0, "undecided"), (4, 5, "regression")])
def test_made_questions_raise_no_alarm_alone(
    run: Path, tunewise: Tunewise, tmp_path: Path, made: int, code: int, outcome: str
) -> None:
    rows = [{**row, "made": True} if n < made else row for n, row in enumerate(questions())]
    file = write_rows(tmp_path / "questions.jsonl", rows)
    ended, out, _ = tunewise("recheck", run, "--questions", file, "--prompt", "Sing.", "--json")
    data = json.loads(out)
    assert (ended, data["outcome"]) == (code, outcome)
    assert data["questions"]["made"] == sum(
        row["id"] in {f"q{n}" for n in range(made)} for row in answers(run)
    )
    assert bool(data["made"]) is (made < COUNT), "with real questions, the made ones are shown beside"


def test_accepted_recheck_is_the_next_base(run: Path, tunewise: Tunewise, tmp_path: Path) -> None:
    changed = write_rows(tmp_path / "documents.jsonl", documents(wrong=4))
    code, out, _ = tunewise("recheck", run, "--documents", changed, "--accept", "--json")
    assert (code, json.loads(out)["compared_with"]) == (0, "run")
    data = json.loads(tunewise("recheck", run, "--documents", changed, "--json")[1])
    assert data["compared_with"].endswith(Path(json.loads(out)["folder"]).name)
    assert (data["outcome"], data["arms"][0]["asked_again"]) == ("unchanged", 0)
    assert (Path(json.loads(out)["folder"]) / "index").is_dir()
    base_file = json.loads((run / "rechecks" / "base.json").read_text("utf-8"))
    assert len(base_file["history"]) == 1
    shutil.rmtree(json.loads(out)["folder"])
    code, _, err = tunewise("recheck", run)
    assert code == 3
    assert "accepted last" in err


def test_answers_of_another_state_of_the_run_are_not_those_of_a_recheck(run: Path, tmp_path: Path) -> None:
    """The run was carried out again meanwhile: with its weights of today, a recheck of the same files begins anew."""
    (run / "manifest.json").unlink()
    first = recheck(run, RecheckRequest()).folder
    assert recheck(run, RecheckRequest()).folder == first
    rows = answers(run)
    rows[0]["answer"] = "None."
    write_rows(run / "trial" / "answers.jsonl", rows)
    assert recheck(run, RecheckRequest()).folder != first


def test_index_of_a_recheck_that_was_accepted_meanwhile_stays(run: Path, tmp_path: Path) -> None:
    """It is removed under the lock of its folder, and not where another process has accepted it."""
    changed = write_rows(tmp_path / "documents.jsonl", documents(wrong=4))
    request = RecheckRequest(documents=changed, out=tmp_path / "out", accept=False)

    def accept(event: dict[str, Any]) -> None:
        if event["event"] == "step.start":
            accept_recheck(run, tmp_path / "out", "2026-01-01")

    recheck(run, replace(request, out=tmp_path / "other"))
    assert not (tmp_path / "other" / "index").exists()
    recheck(run, request, on_event=accept)
    assert (tmp_path / "out" / "index").is_dir()


def test_prices_alone_ask_nothing(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is one of a hosted model: its answers are all known, so that nothing is sent there."""
    monkeypatch.setenv("TUNEWISE_FACTS", "")
    host = base.server.url.removeprefix("http://").removesuffix("/v1")
    for name in ("plan.yaml", "events.jsonl"):
        text = (run / name).read_text("utf-8")
        (run / name).write_text(
            text.replace(base.server.url, "https://models.example.com/v1").replace(
                host, "models.example.com"
            ),
            "utf-8",
        )
    report = json.loads((run / "report.json").read_text("utf-8"))
    for arm in report["arms"]:
        arm["usd_per_1000"] = 1.0
    (run / "report.json").write_text(json.dumps(report), "utf-8")
    (run / "manifest.json").unlink()
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices:\n- {model: reader, input: 3, output: 9, day: 2026-11-01}\n", "utf-8")
    code, out, err = tunewise("recheck", run, "--prices", prices, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert [change["kind"] for change in data["changes"]] == ["prices"]
    assert data["arms"][0]["asked_again"] == 0
    assert data["arms"][0]["usd_per_1000"]["now"] != 1.0


def journal_lines(run: Path) -> int:
    """Return how many answers the rechecks of a run have written."""
    files = run.glob("rechecks/*/trial/answers.jsonl")
    return sum(len(file.read_text("utf-8").splitlines()) for file in files)


def test_killed_recheck_goes_on(
    base: Base, run: Path, tunewise: Tunewise, command_server: CommandServer, tmp_path: Path
) -> None:
    """Answers that were written before it was killed are not asked again."""
    total = len(answers(run))
    command = ("recheck", run, "--prompt", f"{SYSTEM} Thanks.", "--json")
    before = base.server.asked
    answer, asleep = base.server.answer, threading.Event()

    def slow(model: str, messages: list[dict[str, Any]]) -> str:
        if base.server.asked - before > 8:
            asleep.wait(HANG_S)
        return answer(model, messages)

    base.server.answer = slow  # type: ignore[method-assign]
    process = command_server.start(*command, cwd=tmp_path, env=os.environ)
    while not journal_lines(run) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    asleep.set()
    base.server.answer = answer  # type: ignore[method-assign]
    assert process.returncode == 130, errors
    assert "tunewise recheck" in errors
    written = journal_lines(run)
    assert 0 < written < total
    before = base.server.asked
    code, out, err = tunewise(*command)
    assert code == 0, err
    assert base.server.asked - before == total - written
    assert json.loads(out)["arms"][0]["asked_again"] == total


def test_workflow_files_are_valid_and_their_steps_run(
    base: Base, run: Path, tunewise: Tunewise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents.jsonl", documents())
    write_rows(tmp_path / "questions.jsonl", questions())
    data = ("--documents", "documents.jsonl", "--questions", "questions.jsonl")
    code, out, err = tunewise("recheck", "run", *data, "--margin", "0.02", "--workflow", "github")
    assert (code, err) == (0, "")
    workflow = yaml.safe_load(out)
    triggers = workflow[True]  # YAML 1.1 reads the key "on" as true
    assert triggers["push"]["paths"] == ["run/plan.yaml", "documents.jsonl", "questions.jsonl"]
    assert triggers["pull_request"]["paths"] == triggers["push"]["paths"]
    steps = workflow["jobs"]["recheck"]["steps"]
    assert all(step["uses"].partition("@")[2].startswith("v") for step in steps if "uses" in step)
    scripts = {step["name"]: step["run"] for step in steps if "run" in step}
    assert scripts["Install"] == f"pip install ./tunewise-{__version__}-py3-none-any.whl"
    words = shlex.split(scripts["Recheck"])
    assert words[:3] == ["tunewise", "recheck", "run"]
    assert tunewise(*words[1:])[0] == 0
    summary = tmp_path / "summary.md"
    subprocess.run(
        ["bash", "-e", "-c", scripts["Show the result"]],
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}, check=True, timeout=HANG_S,
    )  # fmt: skip
    assert summary.read_text("utf-8").startswith("## tunewise recheck, ")
    gitlab = yaml.safe_load(tunewise("recheck", "run", *data, "--workflow", "gitlab")[1])
    assert gitlab["tunewise recheck"]["artifacts"]["reports"]["junit"] == "recheck.xml"
    code, _, err = tunewise("recheck", "run", "--workflow", "gitlab")
    assert code == 0
    assert "not below this folder" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "does not exist"),
        (["RUN", "--documents", "nowhere"], 3, "there is nothing at"),
        (["RUN", "--arm", "hybrid"], 3, "has not measured an arm 'hybrid'"),
        (["RUN", "--out", "full"], 2, "is not the folder of a recheck"),
        (["RUN", "--junit", "nowhere/j.xml"], 2, "is not a folder"),
        (["RUN", "--prices", "nowhere"], 3, "there is no file of prices"),
        (["RUN", "--prompt", "nowhere.txt"], 3, "there is no prompt file"),
        (["RUN", "--workflow", "jenkins"], 2, "choose one of github, gitlab"),
        (["RUN", "--plan", "nowhere.yaml"], 3, "no plan at"),
        (["RUN", "--questions", "other.jsonl"], 3, "none of the"),
        (["RUN", "--model", "no-such-model"], 3, "no-such-model"),
    ],
)
def test_bad_input(
    run: Path, tunewise: Tunewise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear", "utf-8")
    write_rows(tmp_path / "other.jsonl", [{"question": f"Who is {n}?", "answers": ["me"]} for n in range(9)])
    ended, out, err = tunewise("recheck", *(str(run) if a == "RUN" else a for a in arguments))
    assert (ended, out) == (code, ""), err
    assert message in err
    assert len(err.splitlines()) <= 3
    assert not (tmp_path / "full" / "state.json").exists()


@pytest.mark.parametrize("part", ["report.json", "trial/answers.jsonl", "trial/scores.json"])
def test_unfinished_run_is_refused(run: Path, tunewise: Tunewise, part: str) -> None:
    (run / part).unlink()
    (run / "manifest.json").unlink()
    code, _, err = tunewise("recheck", run)
    assert code == 3
    assert "--resume" in err
    assert len(err.splitlines()) == 2


def test_damaged_run_is_refused(run: Path, tunewise: Tunewise) -> None:
    with (run / "trial" / "answers.jsonl").open("a") as journal:
        journal.write("{}\n")
    code, _, err = tunewise("recheck", run)
    assert code == 3
    assert "manifest" in err
