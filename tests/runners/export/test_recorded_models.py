"""A run answers with the models it was made with, wherever they are now, and with no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.runs.opened import Opening, OpenRun

QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture
def copy_run(llama: Any, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the run with other names in plan and log; the copy is unsealed."""

    def copy(changes: dict[Any, Any]) -> Path:
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(llama.path, run)
        (run / "manifest.json").unlink()
        for name in ("plan.yaml", "events.jsonl"):
            text = (run / name).read_text("utf-8")
            for old, new in changes.items():
                text = text.replace(str(old), str(new))
            (run / name).write_text(text, "utf-8")
        return run

    return copy


def copy_altered(folder: Path, to: Path) -> Path:
    """Copy a model's folder with one weight changed."""
    shutil.copytree(folder, to)
    file = to / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"\x01\x02")
    return to


def test_other_weights_under_the_same_name_are_refused(
    copy_run: Callable[..., Path], llama: Any, tmp_path: Path
) -> None:
    """The plan has no fingerprints here; only the log has."""
    assert llama.plan.model.fingerprint is None
    base, embedder = llama.base, Path(llama.plan.embedder.name)
    for folder in (base, embedder):
        run = copy_run({folder: copy_altered(folder, tmp_path / f"other {folder.name}")})
        with pytest.raises(BadInput, match=r"is not the one recorded: fingerprint [0-9a-f]{16}, recorded"):
            OpenRun.open(run).obtain()
    unrecorded = copy_run({base: tmp_path / f"other {base.name}"})
    events = [json.loads(line) for line in (unrecorded / "events.jsonl").read_text("utf-8").splitlines()]
    events = [{k: v for k, v in event.items() if k not in ("base", "models")} for event in events]
    (unrecorded / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    session = OpenRun.open(unrecorded).obtain()
    assert session.ask([QUESTION], session.arm("rag")), (
        "an older log has no record of the models, and its run still opens"
    )


def test_moved_base_is_given_by_its_folder(
    copy_run: Callable[..., Path], llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from advisor import cli

    run = copy_run({llama.base: tmp_path / "gone"})
    with pytest.raises(BadInput, match="does not exist") as refused:
        OpenRun.open(run).obtain()
    assert "--model FOLDER" in refused.value.hint
    with pytest.raises(BadInput, match="is not the one recorded"):
        OpenRun.open(run, Opening(model=copy_altered(llama.base, tmp_path / "other"))).obtain()
    with pytest.raises(SystemExit) as stop:
        cli.main(["ask", str(run), QUESTION, "--arm", "rag", "--model", str(llama.base), "--json"])
    assert not stop.value.code
    first = OpenRun.open(llama.path).obtain()
    assert json.loads(capsys.readouterr().out)["answer"] == first.ask([QUESTION], first.arm("rag"))[0].text
    result = export(run, ExportRequest("merged", "lora", out=tmp_path / "out", model=llama.base))
    assert (Path(result.out) / "config.json").is_file()


def test_missing_examples_file_is_named(copy_run: Callable[..., Path], llama: Any) -> None:
    run = copy_run(
        {llama.plan.data.examples: "/gone/examples.jsonl", llama.plan.data.test_questions: "/gone/test.jsonl"}
    )
    plan = (run / "plan.yaml").read_text("utf-8")
    assert "arm: rag, retrieval: true" in plan
    (run / "plan.yaml").write_text(plan.replace("arm: rag,", "arm: rag, shots: 2,"), "utf-8")
    session = OpenRun.open(run).obtain()
    with pytest.raises(
        BadInput, match=r"shows examples of /gone/examples\.jsonl, which is not there"
    ) as refused:
        session.ask([QUESTION], session.arm("rag"))
    assert "--arm" in refused.value.hint
    (run / "plan.yaml").write_text(
        (run / "plan.yaml").read_text("utf-8").replace("/gone/examples.jsonl", str(llama.plan.data.examples)),
        "utf-8",
    )
    session = OpenRun.open(run).obtain()
    assert session.ask([QUESTION], session.arm("rag")), "the questions of the trial are not needed to answer"
