"""`tunewise train` by its flags, in this process and on the tiny model: checks, invalid flags, and a whole training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advisor import cli
from advisor.workflows.train import remove_result, resume_line
from rag.errors import BadInput
from rag.files import writer_lock
from runners.data.examples import Example
from runners.models import adapters
from runners.models.resolve import Model
from runners.paths import work_folder
from runners.preflight.report import CHECK_CODES
from tests.support.limits import children_seconds

Train = Callable[..., Any]


def write(path: Path, rows: tuple[Example, ...]) -> Path:
    """Write rows as JSON lines."""
    text = "".join(json.dumps({"messages": list(row.messages), "meta": row.meta}) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, examples: tuple[Example, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the examples in it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", examples)
    return tmp_path


@pytest.fixture
def train(tiny: Model, folder: Path) -> Train:
    """Return a function that runs the verb on the rows and the tiny model."""

    def run(*flags: object) -> Any:
        arguments = ("train", "--examples", "rows.jsonl", "--model", tiny.folder, *flags)
        return CliRunner().invoke(cli.app, [str(part) for part in arguments])

    return run


def test_train_help_is_grouped_and_quick() -> None:
    code = "import sys; from advisor.cli import main; sys.argv = ['tunewise', 'train', '--help']; main()"
    before = children_seconds()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert children_seconds() - before < 5  # 0.5 s; the cause, imports, is tested in tests/project
    for panel in (
        "Data",
        "Model and result",
        "How it learns",
        "LoRA",
        "Memory and speed",
        "Running and checking",
    ):
        assert f"─ {panel} ─" in done.stdout


def test_check_prints_all_checks_and_trains_nothing(train: Train, folder: Path) -> None:
    done = train("--check", "--out", "made", "--questions", "asked.jsonl")
    assert (done.exit_code, "asked.jsonl does not exist" in done.stderr) == (3, True)
    (folder / "asked.jsonl").write_text(
        json.dumps({"question": "Who is the captain of the ship?"}) + "\n", "utf-8"
    )
    more = ("--questions", "asked.jsonl", "--method", "qlora", "--micro-tokens", 256, "--json", "--show", 1)
    done = train("--check", "--out", "made", *more)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["schema"], result["ok"], result["rows"]) == (1, True, 36)
    codes = {check["code"]: check for check in result["checks"]}
    assert list(codes) == sorted(codes)
    assert set(CHECK_CODES) - set(codes) == {"PF014", "PF017"}, "no validation rows, no labels"
    assert {check["level"] for check in result["checks"]} == {"ok"}
    assert codes["PF023"]["text"].startswith("fits: ")
    assert result["settings"]["rank"] == 16
    assert "because" in result["reasons"]["rank"]
    assert result["teaches"]["rows"] == 36
    assert result["teaches"]["missing"] is None
    assert sum(result["teaches"][kind] for kind in ("changing", "stable", "behaviour")) == 36
    assert "what the rows teach: of 36 rows, " in done.stderr
    assert "No documents were read" in done.stderr
    assert "⟦Yes, the north pier" in done.stderr
    assert not (folder / "made").exists()


def test_failed_check_exits_3_before_training(
    train: Train, folder: Path, examples: tuple[Example, ...]
) -> None:
    key = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
    leaking_turn = {"role": "assistant", "content": f"The key is {key}. Shall I?"}
    spoilt = tuple(replace(row, messages=(*row.messages[:2], leaking_turn)) for row in examples[:2])
    write(folder / "rows.jsonl", (*examples, *spoilt))
    done = train("--out", "made")
    assert done.exit_code == 3
    assert "API key in 2 rows (37, 38)" in done.stderr
    assert "next: remove them" in done.stderr
    assert key not in done.output
    assert not (folder / "made").exists()
    done = train("--show", 1)
    assert done.exit_code == 0
    assert done.stdout.count("⟦") == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (
            "--method prefix --out o",
            2,
            "--method prefix is not a tuning method | choose one of lora, qlora, full",
        ),
        ("", 2, "--out is missing"),
        ("--out o --resume --overwrite", 2, "exclude each other"),
        ("--out o --rank 0", 2, "--rank 0 is out of bounds | from 1 to 512"),
        ("--out o --epochs nan", 2, "--epochs nan is out of bounds | above 0, at most 100"),
        ("--out o --learning-rate 2", 2, "--learning-rate 2 is out of bounds"),
        ("--out o --max-tokens 1", 2, "--max-tokens 1 is out of bounds | from 8 to 1,000,000,000"),
        ("--out o --kernels fast", 2, "--kernels 'fast' is unknown | one of: auto, plain"),
        ("--out o --variant loha", 2, "--variant 'loha' is unknown | one of: lora, rslora, dora, pissa"),
        ("--out o --optimizer sgd", 2, "--optimizer 'sgd' is unknown | one of: adamw, adamw_8bit"),
        ("--out o --schedule step", 2, "--schedule 'step' is unknown | one of: cosine, linear, constant"),
        ("--out o --turns first", 2, "--turns 'first' is unknown | one of: all, last"),
        ("--out o --method full --rank 8", 2, "--rank is about LoRA"),
        ("--out o --init-adapter a --alpha 8", 2, "--alpha has no effect with --init-adapter"),
        ("--out o --patience 2", 2, "--patience needs validation rows"),
        ("--out o --valid v.jsonl --valid-share 0.1", 2, "--valid and --valid-share exclude each other"),
        ("--out o --valid-share 1.5", 2, "--valid-share 1.5 is no share"),
        ("--out o --replay-share 0.1", 2, "--replay-share needs --replay"),
        ("--out o --max-rows 0", 2, "--max-rows 0 leaves no rows to learn from"),
        ("--out o --show -1", 2, "--show -1 is no number of rows"),
        (
            "--out o --accept PF001",
            2,
            "--accept PF001 cannot be accepted | can be accepted: PF013 (leak to questions)",
        ),
        ("--out rows.jsonl", 2, "rows.jsonl is a file"),
        ("--out . ", 2, "continue with --resume, or start again with --overwrite"),
        ("--out . --overwrite", 2, ". was not made by tunewise train"),
        ("--out o --columns reply", 3, "'reply' is not role=column"),
        ("--out o --valid none.jsonl", 3, "none.jsonl does not exist"),
        ("--out o --targets nope", 3, "target 'nope' is no linear layer of this model | one of: down_proj"),
    ],
)
def test_invalid_flags_are_rejected(train: Train, folder: Path, flags: str, code: int, message: str) -> None:
    done = train(*flags.split())
    assert done.exit_code == code, done.output
    for part in message.split(" | "):
        assert part in done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith(("tunewise:", "  next:"))]
    assert 1 <= len(last) <= 2
    assert not (folder / "o").exists()


def test_train_publishes_adapter_and_continues_from_it(
    train: Train, folder: Path, examples: tuple[Example, ...], tiny: Model
) -> None:
    settings = (
        "--epochs",
        2,
        "--rank",
        4,
        "--batch-tokens",
        400,
        "--learning-rate",
        0.01,
        "--valid-share",
        0.2,
    )
    done = train("--out", "made", *settings, "--patience", 3, "--variant", "rslora", "--lora-plus", 4)
    assert done.exit_code == 0, done.output
    assert "learning_rate: 0.01 as you set it" in done.stderr
    assert "set apart for validation, by document and near repeat: " in done.stderr
    assert "validation loss" in done.stderr
    assert done.stdout.startswith("adapter: made\nloss: ")
    assert "next: tunewise adapters show made" in done.stdout
    (stored,) = adapters.find_adapters([folder / "made"])
    assert (stored.rank, stored.variant, stored.files, stored.problem) == (4, "rslora", ("rows.jsonl",), "")

    done = train("--out", "made", *settings)
    assert (done.exit_code, "made exists" in done.stderr) == (2, True)
    write(folder / "general.jsonl", examples[30:])
    more = ("--init-adapter", "made", "--replay", "general.jsonl", "--epochs", 1, "--max-rows", 20)
    done = train("--out", "more", *more, "--prompt", "Be brief.", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == 22
    assert "the first 20 of 36 rows" in done.stderr
    assert "mixed in from general.jsonl: 2 rows for replay" in done.stderr


def test_overwrite_removes_nothing_of_a_running_training(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for folder in (out, work_folder(out)):
        folder.mkdir()
        (folder / "file").write_text("kept", "utf-8")
    with writer_lock(work_folder(out)), pytest.raises(BadInput, match="is being written"):
        remove_result(out)
    assert (out / "file").is_file()
    assert (work_folder(out) / "file").is_file()
    remove_result(out)
    assert not out.exists()
    assert not work_folder(out).exists()


def test_resume_line() -> None:
    arguments = ["/bin/tunewise", "train", "--examples", "my rows.jsonl", "--overwrite", "--out", "o"]
    assert resume_line(arguments) == "tunewise train --examples 'my rows.jsonl' --out o --resume"


def test_the_python_call_trains_as_the_verb_does(train: Train, tiny: Model, folder: Path) -> None:
    """The same settings, chosen and given, and the same weights to the bit; refusals are raised."""
    import asyncio

    import tunewise

    assert train("--epochs", "1", "--rank", "4", "--seed", "3", "--out", "verb").exit_code == 0
    events: list[dict[str, Any]] = []
    call: dict[str, Any] = {"model": str(tiny.folder), "epochs": 1, "rank": 4, "seed": 3}
    result = tunewise.train("rows.jsonl", "call", on_event=events.append, **call)
    assert isinstance(result, tunewise.TrainResult)
    assert {"train.start", "train.end"} <= {event["event"] for event in events}
    weights = [(folder / name / "adapter_model.safetensors").read_bytes() for name in ("verb", "call")]
    assert weights[0] == weights[1]
    manifests = [
        json.loads((folder / name / "manifest.json").read_text("utf-8")) for name in ("verb", "call")
    ]
    assert manifests[0]["config"] == manifests[1]["config"]
    assert tunewise.train("rows.jsonl", "call", resume=True, **call).folder == result.folder
    for arguments, error, text in (
        ({"out": "call"}, tunewise.UsageProblem, "exists"),
        ({"out": "new", "learn_rate": 1}, tunewise.UsageProblem, "no setting 'learn_rate'"),
        ({"out": "new", "rank": "many"}, tunewise.UsageProblem, "rank"),
        ({"out": "new", "method": "full"}, tunewise.UsageProblem, "rank is about LoRA"),
        ({"out": "new", "examples": "none.jsonl"}, tunewise.BadInput, "none.jsonl"),
    ):
        with pytest.raises(error, match=text):
            tunewise.train(**{"examples": "rows.jsonl", **call, **arguments})
    with pytest.raises(tunewise.BadInput, match="call"):
        tunewise.export("call", "peft")

    async def serve_in_a_loop() -> None:
        tunewise.serve("call", port=0)

    with pytest.raises(tunewise.UsageProblem, match="main thread and outside of an event loop"):
        asyncio.run(serve_in_a_loop())
