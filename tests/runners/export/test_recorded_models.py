"""A run answers with the models it was made with, wherever they lie now, and with no others."""

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
from runners.runs.run import open_session

QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture
def moved(llama: Any, tmp_path: Path) -> Callable[..., Path]:
    """Copy the run, with other names in plan and log; it is unsealed, because its plan is another."""

    def copy(changes: dict[Any, Any]) -> Path:
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(llama.path, run)
        (run / "manifest.json").unlink()
        for name in ("plan.yaml", "events.jsonl"):
            said = (run / name).read_text("utf-8")
            for old, new in changes.items():
                said = said.replace(str(old), str(new))
            (run / name).write_text(said, "utf-8")
        return run

    return copy


def altered(folder: Path, to: Path) -> Path:
    """Copy a model's folder with one weight changed."""
    shutil.copytree(folder, to)
    file = to / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"\x01\x02")
    return to


def test_other_weights_under_the_same_name_do_not_answer(
    moved: Callable[..., Path], llama: Any, tmp_path: Path
) -> None:
    """No arm is tuned here that could tell: the plan has no fingerprints, only the log."""
    assert llama.plan.model.fingerprint is None
    base, embedder = llama.base, Path(llama.plan.embedder.name)
    for place in (base, embedder):
        run = moved({place: altered(place, tmp_path / f"other {place.name}")})
        with pytest.raises(BadInput, match=r"is not the one recorded: fingerprint [0-9a-f]{16}, recorded"):
            open_session(run)
    before = moved({base: tmp_path / f"other {base.name}"})
    events = [json.loads(line) for line in (before / "events.jsonl").read_text("utf-8").splitlines()]
    kept = [{k: v for k, v in event.items() if k not in ("base", "models")} for event in events]
    (before / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in kept), "utf-8")
    session = open_session(before)
    assert session.ask([QUESTION], session.arm("rag")), (
        "a log of before holds no record, and its run goes on opening"
    )


def test_a_base_that_lies_elsewhere_now_is_given_by_its_folder(
    moved: Callable[..., Path], llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from advisor import cli

    run = moved({llama.base: tmp_path / "gone"})
    with pytest.raises(BadInput, match="does not exist") as refused:
        open_session(run)
    assert "--model FOLDER" in refused.value.hint
    with pytest.raises(BadInput, match="is not the one recorded"):
        open_session(run, model=altered(llama.base, tmp_path / "other"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["ask", str(run), QUESTION, "--arm", "rag", "--model", str(llama.base), "--json"])
    assert not stop.value.code
    first = open_session(llama.path)
    assert json.loads(capsys.readouterr().out)["answer"] == first.ask([QUESTION], first.arm("rag"))[0].text
    made = export(run, ExportRequest("merged", "lora", out=tmp_path / "out", model=llama.base))
    assert (made.out / "config.json").is_file()


def test_an_arm_whose_examples_are_gone_says_which_file(moved: Callable[..., Path], llama: Any) -> None:
    run = moved(
        {llama.plan.data.examples: "/gone/examples.jsonl", llama.plan.data.test_questions: "/gone/test.jsonl"}
    )
    plan = (run / "plan.yaml").read_text("utf-8")
    (run / "plan.yaml").write_text(plan.replace("shots: 0", "shots: 2"), "utf-8")
    session = open_session(run)
    with pytest.raises(
        BadInput, match=r"shows examples of /gone/examples\.jsonl, which is not there"
    ) as refused:
        session.ask([QUESTION], session.arm("rag"))
    assert "--arm" in refused.value.hint
    (run / "plan.yaml").write_text(
        (run / "plan.yaml").read_text("utf-8").replace("/gone/examples.jsonl", str(llama.plan.data.examples)),
        "utf-8",
    )
    session = open_session(run)
    assert session.ask([QUESTION], session.arm("rag")), "the questions of the trial are not needed to answer"
