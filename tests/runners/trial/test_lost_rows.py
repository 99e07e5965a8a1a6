"""A hybrid on cards of `KEY: value` lines, from the command line: trained, or stopped before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from advisor import cli
from advisor.report.report import judge
from rag.files import append_line
from runners.models.resolve import Model
from runners.run_folder import read_journal

NAMES = (
    "amber",
    "birch",
    "copper",
    "dunlin",
    "elder",
    "falcon",
    "garnet",
    "heron",
    "indigo",
    "juniper",
    "kelp",
    "larch",
)
WORDS = "[PAD] [UNK] card for the pump is serviced every hours it costs crowns . ? " + " ".join(NAMES)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """The folder of a BERT of 8,000 parameters with the words of these tests."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS.split())}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return little_bert(tmp_path_factory.mktemp("embedder"), tokenizer)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def make_plan(
    tmp_path: Path, tiny: Model, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return a function that writes documents, cards and a plan; ``wrong`` cards have values of no document."""
    monkeypatch.chdir(tmp_path)

    def make(wrong: int, **data: Any) -> Path:
        documents, cards = [], []
        for n, name in enumerate(NAMES):
            hours, price = (41 + 7 * n, 300 + 11 * n) if n >= wrong else (9000 + n, 8000 + n)
            text = f"The {name} pump is serviced every {41 + 7 * n} hours. It costs {300 + 11 * n} crowns."
            documents.append({"id": name, "title": f"{name} pump".capitalize(), "text": text})
            asset = f"{name} pump" if n >= wrong else f"unit {n}"
            reply = f"ASSET: {asset}\nINTERVAL: {hours} h\nPRICE: {price} crowns\nPRIORITY: P{n % 3}"
            meta = {"doc_id": name} if n >= wrong else {}
            turns = [
                {"role": "user", "content": f"Card for {asset}"},
                {"role": "assistant", "content": reply},
            ]
            cards.append({"messages": turns, "meta": meta})
        write(tmp_path / "documents.jsonl", documents)
        write(tmp_path / "cards.jsonl", cards)
        write(
            tmp_path / "asked.jsonl",
            [{"question": f"Where is shelf {n}?", "answers": ["no"]} for n in range(12)],
        )
        weights = {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True}
        train = {"kind": "train", "arm": "hybrid", "rows": "retrieval", "rank": 2, "alpha": 4, "epochs": 1}
        body = {
            "schema": 1,
            "name": "cards",
            "choice": "hybrid",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(embedder)},
            "data": {
                "documents": "documents.jsonl",
                "examples": "cards.jsonl",
                "questions": "asked.jsonl",
                **data,
            },
            "steps": [
                {"kind": "index", "k": 2},
                {"kind": "evaluate", "arm": "prompting"},
                {**train, "max_tokens": 4096, "without_gold": 0.0},
                weights,
            ],
            "weights": {"style": 1},
            "forgetting": {"prompts": 0},
            "max_new_tokens": 2,
        }
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(body), "utf-8")
        return tmp_path

    return make


def run(*flags: str) -> Any:
    return CliRunner().invoke(cli.app, ["run", "plan.yaml", "--out", "out", *flags])


def test_cards_are_trained_on_all_rows(make_plan: Callable[..., Path]) -> None:
    """The keys and the priority are in no document; each card has a passage nevertheless."""
    folder = make_plan(wrong=0)
    done = run()
    assert done.exit_code in (0, 5), done.output
    events = read_journal(folder / "out" / "events.jsonl")
    prepared = next(e for e in events if e["event"] == "rows.prepared")
    assert (prepared["examples"], prepared["with_gold"], prepared["unsupported"]) == (12, 12, 0)
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    (hybrid,) = [arm for arm in report["arms"] if arm["arm"] == "hybrid"]
    assert (hybrid["training_rows"]["rows"], hybrid["training_rows"]["planned"]) == (12, True)
    check_lost_weights_are_trained_again(folder / "out")
    check_report_of_an_arm_that_lost_its_rows(folder / "out")


def check_lost_weights_are_trained_again(out: Path) -> None:
    """Delete the weights of a finished run: asking names the training to repeat, which gives the same weights."""
    weights = out / "adapters" / "hybrid-s0" / "adapter_model.safetensors"
    before = weights.read_bytes()
    answers = (out / "trial" / "answers.jsonl").read_bytes()
    shutil.rmtree(weights.parent)
    asked = CliRunner().invoke(cli.app, ["ask", str(out), "Card for amber pump", "--arm", "hybrid"])
    assert asked.exit_code == 3
    assert "--resume --only train:hybrid" in asked.output.replace("\n", " ")
    again = run("--resume", "--only", "train:hybrid")
    assert again.exit_code == 0, again.output
    assert "train:hybrid is repeated" in again.output
    assert weights.read_bytes() == before
    assert run("--resume").exit_code in (0, 5)
    assert (out / "trial" / "answers.jsonl").read_bytes() == answers
    assert (out / "manifest.json").is_file()


def check_report_of_an_arm_that_lost_its_rows(out: Path) -> None:
    """Judge the run as if most rows had been too long: no verdict stands on the arm."""
    events = read_journal(out / "events.jsonl")
    done = next(e for e in events if (e["event"], e.get("step")) == ("step.done", "train:hybrid"))
    trained = [{**training, "rows": 1, "left_out": 149} for training in done["result"]["trained"]]
    account = {**done["result"]["account"], "examples": 150}
    result = {**done["result"], "account": account, "trained": trained}
    append_line(out / "events.jsonl", {**done, "time": events[-1]["time"] + 1, "result": result})
    report = judge(out)
    assert report.data["verdict"]["text"].startswith("No verdict on hybrid")
    assert "hybrid trains on 1 of 150 examples" in report.data["verdict"]["text"]
    # The other arm answers nothing right, so there is none to use.
    assert (report.outcome, report.winner, report.data["paired"]) == ("undecided", None, [])
    assert "| hybrid (not trained as planned) |" in (out / "report.md").read_text("utf-8")
    page = (out / "report.html").read_text("utf-8")
    assert "<small>not trained as planned</small>" in page
    assert "after correcting the rows that hybrid was not trained on" in page
    shown = CliRunner().invoke(cli.app, ["report", str(out)], env={"COLUMNS": "160"})
    assert "hybrid (not as planned)" in shown.output


def test_quick_run_records_the_full_one_and_times_answers_alone(make_plan: Callable[..., Path]) -> None:
    folder = make_plan(wrong=0)
    done = run("--quick")
    assert done.exit_code in (0, 5), done.output
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    full = report["full_run"]
    assert full["command"] == "tunewise run plan.yaml --out out-full"
    assert full["minutes"] > 0
    assert report["verdict"]["conclusion"][-1].startswith("This was a quick run")
    (prompting,) = [arm for arm in report["arms"] if arm["arm"] == "prompting"]
    assert (prompting["alone"]["n"], prompting["batch"]) == (3, 8)
    assert 0 < prompting["alone"]["seconds"] <= prompting["alone"]["p95"]


def test_run_stops_before_training_without_a_terminal(make_plan: Callable[..., Path]) -> None:
    folder = make_plan(wrong=5)
    stopped = run()
    assert stopped.exit_code == 3
    assert "hybrid trains on 12 of 12 examples; 7 have their passage" in stopped.output.replace("\n", " ")
    assert "line 1, line 2, line 3" in stopped.output
    assert not list((folder / "out" / "adapters").glob("*"))
    assert not (folder / "out" / "trial" / "answers.jsonl").exists(), "it stops before any arm is asked"


def test_accepted_rows_are_trained_kept_and_said(make_plan: Callable[..., Path]) -> None:
    folder = make_plan(wrong=5)
    assert run("--accept-lost-rows").exit_code in (0, 5)
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    assert any("under two thirds of the rows of hybrid have their passage" in w for w in report["warnings"])
    prepared = next(e for e in read_journal(folder / "out" / "events.jsonl") if e["event"] == "rows.prepared")
    assert (prepared["rows"], prepared["unsupported"]) == (12, 5)


def test_plan_key_accepts_and_four_of_twelve_are_no_question(make_plan: Callable[..., Path]) -> None:
    make_plan(wrong=5, lost_rows="accept")
    assert run("--only", "index").exit_code == 0
    assert run("--only", "train:hybrid", "--resume").exit_code == 0
    make_plan(wrong=4)
    assert run("--overwrite").exit_code in (0, 5)


def test_person_at_a_terminal_is_asked(
    make_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from advisor.workflows.run import run_and_report
    from runners.plan.schema import read_plan
    from runners.trial.execute import RunRequest
    from runners.trial.row_guard import RowsLost

    folder = make_plan(wrong=5)
    plan = read_plan(folder / "plan.yaml")
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    for answer, trained in (("n", False), ("y", True)):
        with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
            keys.send_text(answer)
            if trained:
                assert run_and_report(RunRequest(plan=plan, out=folder / "out", resume=True))[1] is not None
            else:
                with pytest.raises(RowsLost):
                    run_and_report(RunRequest(plan=plan, out=folder / "out"))
        assert bool(list((folder / "out" / "adapters").glob("hybrid-*"))) is trained


def test_dry_run_counts_the_rows_and_stops(make_plan: Callable[..., Path]) -> None:
    make_plan(wrong=5)
    stopped = run("--dry-run", "--json")
    assert stopped.exit_code == 3
    (rows,) = json.loads(stopped.stdout)["rows"]
    assert (rows["arm"], rows["rows"], rows["of"], rows["with_passage"]) == ("hybrid", 12, 12, 7)
