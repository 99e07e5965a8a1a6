"""Refusals before anything is written, existing exports, interruption, cards and the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor import cli
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import writer_lock
from runners.export.export import export
from runners.export.job import ExportRequest, require_disk_space
from runners.export.registry import TARGET_NAMES, TARGETS
from tests.support.limits import HANG_S


@pytest.fixture
def run(llama: Any, tmp_path: Path) -> Path:
    """A copy of a finished run, which tests may damage."""
    shutil.copytree(llama.path, tmp_path / "run")
    return tmp_path / "run"


def main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, stdout and stderr."""
    code = 0
    try:
        cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_help_names_every_target() -> None:
    import inspect

    from advisor.commands.export import command

    text = inspect.signature(command).parameters["to"].default.help
    assert len(TARGETS) == 9
    assert all(name in text for name in TARGET_NAMES)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (ExportRequest("pfet"), "did you mean peft"),
        (ExportRequest("index", arm="lora"), "remove --arm"),
        (ExportRequest("bundle", seed=0), "remove --seed"),
        (ExportRequest("peft", dtype="float16"), "remove --dtype"),
        (ExportRequest("merged", dtype="q8_0"), "one of: auto, float32"),
    ],
)
def test_options_without_effect_are_refused(llama: Any, wanted: ExportRequest, message: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        export(llama.path, wanted)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        (
            ExportRequest("merged", "rag"),
            "the arm rag has no weights of its own: it is the base model as it is, given passages",
            "--to index",
        ),
        (ExportRequest("peft", "loar"), "no arm 'loar'", "lora"),
        (ExportRequest("peft", "lora", 7), "no weights of seed 7", "its seeds: 0, 3"),
        (ExportRequest("provider-jsonl", "rag", 1), "was not trained", "remove --seed"),
    ],
)
def test_arm_that_cannot_be_exported_names_alternatives(
    llama: Any, tmp_path: Path, wanted: ExportRequest, message: str, hint: str
) -> None:
    with pytest.raises(BadInput) as refused:
        export(llama.path, ExportRequest(wanted.to, wanted.arm, wanted.seed, tmp_path / "out"))
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert not (tmp_path / "out").exists()


def test_damaged_run_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = run / "adapters" / "lora-s0" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    code, _, err = main(capsys, "export", run, "--to", "peft", "--arm", "lora", "--out", tmp_path / "out")
    assert code == 3
    assert "adapters/lora-s0/adapter_model.safetensors differs" in err
    (run / "manifest.json").unlink()  # an unfinished run has none, and its weights are still checked
    code, _, err = main(capsys, "export", run, "--to", "merged", "--arm", "lora", "--out", tmp_path / "out")
    assert (code, "damaged" in err) == (3, True)
    (run / "report.json").write_text("{", "utf-8")
    code, _, err = main(capsys, "export", run, "--to", "peft", "--out", tmp_path / "out")
    assert (code, "report.json is damaged" in err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_other_base_under_the_same_name_is_refused(
    run: Path, tiny_model: Any, llama: Any, tmp_path: Path
) -> None:
    moved = tmp_path / "base"
    tiny_model(moved)
    other = moved / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-2] + b"\x01\x02")
    (run / "manifest.json").unlink()
    plan = (run / "plan.yaml").read_text("utf-8").replace(str(llama.base), str(moved))
    (run / "plan.yaml").write_text(plan, "utf-8")
    for to in ("peft", "merged"):
        with pytest.raises(BadInput, match="is not the one recorded"):
            export(run, ExportRequest(to, "lora", None, tmp_path / "out"))


def test_missing_weights_suggest_resume(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "adapters" / "lora-s3")
    with pytest.raises(BadInput, match="lora-s3 is missing") as refused:
        export(run, ExportRequest("peft", "lora", 3, tmp_path / "out"))
    assert "--resume" in refused.value.hint


def test_existing_export_is_reused_replaced_or_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export(run, ExportRequest("peft", "lora", None, out))
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    (out / "README.md").write_text("our own words", "utf-8")
    again = export(run, ExportRequest("peft", "lora", None, out))
    assert (first.again, again.again, again.checked) == (False, True, first.checked)
    assert (out / "README.md").read_text("utf-8") == "our own words"
    assert {
        p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.name != "README.md"
    }.items() <= before.items()
    with pytest.raises(UsageProblem, match="something else"):
        export(run, ExportRequest("peft", "lora", 3, out))
    export(run, ExportRequest("peft", "lora", 3, out, overwrite=True))
    assert json.loads((out / "manifest.json").read_text("utf-8"))["export"]["seed"] == 3
    assert "our own words" not in (out / "README.md").read_text("utf-8")
    (out / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match="damaged"):
        export(run, ExportRequest("peft", "lora", 3, out))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_folder_that_is_no_export_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", "utf-8")
    with pytest.raises(UsageProblem, match="is no export"):
        export(run, ExportRequest("peft", "lora", None, tmp_path / "mine", overwrite=True))
    with pytest.raises(UsageProblem, match="inside the run"):
        export(run, ExportRequest("peft", "lora", None, run / "exports"))
    assert (tmp_path / "mine" / "notes.txt").read_text("utf-8") == "keep"


def test_export_cut_off_while_publishing_is_recovered(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, ExportRequest("peft", "lora", None, out))
    work = tmp_path / ".out.export"  # as a kill between the two renames leaves it
    (work / "made").mkdir(parents=True)
    (work / "made" / "half.safetensors").write_bytes(b"x")
    out.rename(work / "replaced")
    assert export(run, ExportRequest("peft", "lora", 3, tmp_path / "out", overwrite=True)).seed == 3
    assert not work.exists()


def test_leftovers_of_a_killed_export_are_removed_on_reuse(run: Path, tmp_path: Path) -> None:
    wanted = ExportRequest("peft", "lora", None, tmp_path / "out")
    export(run, wanted)
    # As a kill while the export was being replaced leaves it.
    half = tmp_path / ".out.export" / "made" / "half.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"x")
    with writer_lock(tmp_path / ".out.export"):
        assert export(run, wanted).again
        assert half.exists(), "another export may be running"
    assert export(run, wanted).again
    assert not (tmp_path / ".out.export").exists()


def interrupt(child: subprocess.Popen[str]) -> str:
    """Send SIGINT until the child ends, as a user pressing Ctrl-C would; return its stderr.

    One signal can be lost: Python ignores a KeyboardInterrupt raised in a weakref callback, such as that of an import
    lock.
    """
    for _ in range(int(HANG_S / 30)):
        child.send_signal(signal.SIGINT)
        try:
            return child.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    return child.communicate()[1]


def test_interrupted_export_prints_the_command_to_repeat_it(llama: Any, root: Path, tmp_path: Path) -> None:
    line = ["export", llama.path, "--to", "merged", "--arm", "lora", "--out", "my model"]
    child = subprocess.Popen(
        [sys.executable, "-m", "advisor", *map(str, line)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background processes with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stderr is not None
    assert child.stderr.readline().startswith("making ")
    err = interrupt(child)
    assert child.returncode == 130, err
    assert f"tunewise export {llama.path} --to merged --arm lora --out 'my model'\n" in err
    assert list(tmp_path.iterdir()) == []


def test_current_directory_is_refused_as_destination(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), Path("../here"), tmp_path / "here"):
        with pytest.raises(UsageProblem, match="is where you are") as refused:
            export(llama.path, ExportRequest("index", None, None, out))
        assert refused.value.hint.endswith("--out here-export")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_too_little_disk_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="MiB are free") as refused:
        require_disk_space(tmp_path / "not" / "yet" / "there", 2**62)
    assert refused.value.exit_code == 4


def test_exports_hold_no_local_paths_and_no_secrets(llama: Any, run: Path, tmp_path: Path) -> None:
    for to in ("peft", "index", "bundle", "provider-jsonl"):
        result = export(
            llama.path,
            ExportRequest(to, None if to in ("index", "bundle") else "hybrid", None, tmp_path / to),
        )
        for file in Path(result.out).rglob("*"):
            if file.suffix in (".md", ".json", ".jsonl") or file.name == "Modelfile":
                text = file.read_text("utf-8")
                assert str(llama.path.parent) not in text, file
                assert str(tmp_path) not in text, file
        card = (Path(result.out) / "README.md").read_text("utf-8")
        for part in (
            "## How to use it",
            "95 % interval",
            "## Made from",
            "SHA-256",
            "## Checked when it was made",
        ):
            assert part in card
        assert ("licence of the base" in card) is (to in ("peft", "provider-jsonl"))
    (run / "manifest.json").unlink()
    plan = (run / "plan.yaml").read_text("utf-8")
    key = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ"
    (run / "plan.yaml").write_text(plan.replace("in one sentence.", f"in one sentence. {key}"), "utf-8")
    with pytest.raises(BadInput, match="the card would contain a secret") as refused:
        export(run, ExportRequest("peft", "lora", None, tmp_path / "secret"))
    assert key not in str(refused.value)
    assert not (tmp_path / "secret").exists()


def test_command_line_prints_the_result(
    llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = main(
        capsys,
        "export",
        llama.path,
        "--to",
        "vllm",
        "--arm",
        "lora",
        "--seed",
        3,
        "--out",
        tmp_path / "o",
        "--json",
    )
    body = json.loads(out)
    assert (code, body["schema"], body["to"], body["arm"], body["seed"], body["again"]) == (
        0,
        1,
        "vllm",
        "lora",
        3,
        False,
    )
    assert body["line"].startswith(f"vllm serve {tmp_path / 'o'}/base --enable-lora ")
    assert {f["name"] for f in body["files"]} >= {
        "serve.sh",
        "adapter/adapter_config.json",
        "base/model.safetensors",
    }
    code, out, _ = main(
        capsys, "export", llama.path, "--to", "vllm", "--arm", "lora", "--seed", 3, "--out", tmp_path / "o"
    )
    assert (code, "was there already" in out, "\n  vllm serve " in out) == (0, True, True)
    code, _, err = main(capsys, "export", tmp_path / "nowhere", "--to", "peft")
    assert (code, "does not exist" in err) == (3, True)
