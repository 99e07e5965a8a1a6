"""What is refused before anything is written, and what an export that is there already is worth."""

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


@pytest.fixture
def run(llama: Any, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(llama.path, tmp_path / "run")
    return tmp_path / "run"


def main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    code = 0
    try:
        cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_target_is_named_in_the_help() -> None:
    import inspect

    from advisor.commands.export import command

    text = inspect.signature(command).parameters["to"].default.help
    assert len(TARGETS) == 8
    assert all(name in text for name in TARGET_NAMES)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (ExportRequest("pfet"), "did you mean peft"),
        (ExportRequest("index", arm="lora"), "leave out --arm"),
        (ExportRequest("bundle", seed=0), "leave out --seed"),
        (ExportRequest("peft", dtype="float16"), "leave out --dtype"),
        (ExportRequest("merged", dtype="q8_0"), "one of: auto, float32"),
    ],
)
def test_flags_that_mean_nothing_are_refused(llama: Any, wish: ExportRequest, said: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        export(llama.path, wish)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("wish", "said", "hint"),
    [
        (
            ExportRequest("merged", "rag"),
            "the arm rag has no weights of its own: it is the base model as it is, given passages",
            "--to index",
        ),
        (ExportRequest("peft", "loar"), "no arm 'loar'", "lora"),
        (ExportRequest("peft", "lora", 7), "no weights of seed 7", "its seeds: 0, 3"),
        (ExportRequest("provider-jsonl", "rag", 1), "was not trained", "leave out --seed"),
    ],
)
def test_an_arm_that_cannot_be_exported_so_says_what_can(
    llama: Any, tmp_path: Path, wish: ExportRequest, said: str, hint: str
) -> None:
    with pytest.raises(BadInput) as refused:
        export(llama.path, ExportRequest(wish.to, wish.arm, wish.seed, tmp_path / "out"))
    assert said in refused.value.message
    assert hint in refused.value.hint
    assert not (tmp_path / "out").exists()


def test_damage_is_found_before_anything_is_made(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = run / "adapters" / "lora-s0" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    code, _, err = main(capsys, "export", run, "--to", "peft", "--arm", "lora", "--out", tmp_path / "out")
    assert code == 3
    assert "adapters/lora-s0/adapter_model.safetensors differs" in err
    (
        run / "manifest.json"
    ).unlink()  # a run that was cut off has none, and its weights are checked all the same
    code, _, err = main(capsys, "export", run, "--to", "merged", "--arm", "lora", "--out", tmp_path / "out")
    assert (code, "damaged" in err) == (3, True)
    (run / "report.json").write_text("{", "utf-8")
    code, _, err = main(capsys, "export", run, "--to", "peft", "--out", tmp_path / "out")
    assert (code, "report.json is damaged" in err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_another_base_under_the_same_name_is_refused(
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


def test_a_run_without_weights_for_its_arm_says_how_to_get_them(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "adapters" / "lora-s3")
    with pytest.raises(BadInput, match="lora-s3 is missing") as refused:
        export(run, ExportRequest("peft", "lora", 3, tmp_path / "out"))
    assert "--resume" in refused.value.hint


def test_what_is_there_already_is_left_replaced_or_refused(run: Path, tmp_path: Path) -> None:
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


def test_what_is_no_export_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", "utf-8")
    with pytest.raises(UsageProblem, match="is no export"):
        export(run, ExportRequest("peft", "lora", None, tmp_path / "mine", overwrite=True))
    with pytest.raises(UsageProblem, match="inside the run"):
        export(run, ExportRequest("peft", "lora", None, run / "exports"))
    assert (tmp_path / "mine" / "notes.txt").read_text("utf-8") == "keep"


def test_an_export_that_was_cut_off_leaves_nothing_half(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, ExportRequest("peft", "lora", None, out))
    work = tmp_path / ".out.export"  # as a kill between the two renames leaves it
    (work / "made").mkdir(parents=True)
    (work / "made" / "half.safetensors").write_bytes(b"x")
    out.rename(work / "replaced")
    assert export(run, ExportRequest("peft", "lora", 3, tmp_path / "out", overwrite=True)).seed == 3
    assert not work.exists()


def test_what_a_killed_export_left_goes_when_nothing_is_made_either(run: Path, tmp_path: Path) -> None:
    wish = ExportRequest("peft", "lora", None, tmp_path / "out")
    export(run, wish)
    half = (
        tmp_path / ".out.export" / "made" / "half.safetensors"
    )  # as a kill while it was being replaced leaves it
    half.parent.mkdir(parents=True)
    half.write_bytes(b"x")
    with writer_lock(tmp_path / ".out.export"):
        assert export(run, wish).again
        assert half.exists(), "another export may be at work"
    assert export(run, wish).again
    assert not (tmp_path / ".out.export").exists()


def pressed(child: subprocess.Popen[str]) -> str:
    """Press Ctrl-C until the child ends, as a person does; return its stderr.

    One that comes while a module's lock is let go is lost: Python passes over what is raised in a weakref's callback.
    """
    for _ in range(30):
        child.send_signal(signal.SIGINT)
        try:
            return child.communicate(timeout=3)[1]
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    return child.communicate()[1]


def test_an_interrupted_export_prints_the_line_that_makes_it_again(
    llama: Any, root: Path, tmp_path: Path
) -> None:
    line = ["export", llama.path, "--to", "merged", "--arm", "lora", "--out", "my model"]
    child = subprocess.Popen(
        [sys.executable, "-m", "advisor", *map(str, line)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # shells let what they start behind ignore it
    )
    assert child.stderr is not None
    assert child.stderr.readline().startswith("making ")
    said = pressed(child)
    assert child.returncode == 130, said
    assert f"tunewise export {llama.path} --to merged --arm lora --out 'my model'\n" in said
    assert list(tmp_path.iterdir()) == []


def test_the_folder_one_stands_in_is_refused(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), Path("../here"), tmp_path / "here"):
        with pytest.raises(UsageProblem, match="is where you are") as refused:
            export(llama.path, ExportRequest("index", None, None, out))
        assert refused.value.hint.endswith("--out here-export")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="MiB are free") as refused:
        require_disk_space(tmp_path / "not" / "yet" / "there", 2**62)
    assert refused.value.exit_code == 4


def test_cards_name_no_place_and_hold_no_secret(llama: Any, run: Path, tmp_path: Path) -> None:
    for to in ("peft", "index", "bundle", "provider-jsonl"):
        made = export(
            llama.path,
            ExportRequest(to, None if to in ("index", "bundle") else "hybrid", None, tmp_path / to),
        )
        for file in made.out.rglob("*"):
            if file.suffix in (".md", ".json", ".jsonl") or file.name == "Modelfile":
                text = file.read_text("utf-8")
                assert str(llama.path.parent) not in text, file
                assert str(tmp_path) not in text, file
        card = (made.out / "README.md").read_text("utf-8")
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
    with pytest.raises(BadInput, match="the card would hold a secret") as refused:
        export(run, ExportRequest("peft", "lora", None, tmp_path / "secret"))
    assert key not in str(refused.value)
    assert not (tmp_path / "secret").exists()


def test_the_command_line_prints_what_was_made(
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
