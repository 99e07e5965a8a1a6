"""Arms of one run that answer with different models: a local one and one behind an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from advisor.report.report import judge
from rag.errors import BadInput
from runners.models.resolve import Model, RemoteModel
from runners.plan.schema import Plan, parse_plan
from runners.resources.device import torch_device
from runners.run_folder import RunFolder, read_journal
from runners.runs.dataset import read_data
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import BaseModel, ObtainedModels
from runners.trial.execute import RunRequest, carry_out, run_plan
from tests.support.opened import opened_run


def two_models(tiny: Model, server: Any, folder: Path) -> Plan:
    """Return a plan whose second arm asks the server."""
    rows = [{"question": f"Is berth {n} free?", "reference": "Aye."} for n in range(6)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    remote = {"name": f"openai:tern-2@{server.url}", "at_once": 2, "per_minute": 6000}
    return parse_plan(
        {
            "name": "two",
            "choice": "prompting",
            "model": {"name": str(tiny.folder)},
            "data": {"questions": str(folder / "questions.jsonl")},
            "max_new_tokens": 4,
            "seed": 5,
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "prompting-remote", "model": remote},
            ],
            "weights": {"token_f1": 1},
        }
    )


def test_arm_can_use_other_model_than_plan(tiny: Model, server: Any, tmp_path: Path) -> None:
    plan = two_models(tiny, server, tmp_path)
    run = run_plan(plan, tmp_path / "run")
    rows = read_journal(run.path / "trial" / "answers.jsonl")
    answers = {
        arm: [r["answer"] for r in rows if r["arm"] == arm] for arm in ("prompting", "prompting-remote")
    }
    assert answers["prompting-remote"] == ["Aye."] * 4
    assert len(answers["prompting"]) == 4
    assert len(server.seen) == 4 + 2, "the test questions, and the dev questions for the limit"
    assert {body["seed"] for body in server.seen} == {5}


def test_endpoint_arm_leaves_base_in_memory(tiny: Model, server: Any, tmp_path: Path) -> None:
    plan = two_models(tiny, server, tmp_path)
    context = OpenRun.open(run_plan(plan, tmp_path / "run").path).obtain()
    local, remote = context.plan.arms
    base, endpoint = context.models.generator(None, local), context.models.generator(None, remote)
    assert base is not endpoint
    assert context.models.generator(None, local) is base
    assert context.models.generator(None, remote) is endpoint


def test_model_of_arm_is_part_of_step_inputs(tiny: Model, server: Any, tmp_path: Path) -> None:
    plan = two_models(tiny, server, tmp_path)
    run_plan(plan, tmp_path / "run")
    run_plan(plan, tmp_path / "run", resume=True)
    assert len(server.seen) == 4 + 2, "the test questions, and the dev questions for the limit"
    steps = (plan.steps[0], plan.steps[1].model_copy(update={"model": None}))
    with pytest.raises(BadInput, match=r"steps\[1\].model"):
        run_plan(plan.model_copy(update={"steps": steps}), tmp_path / "run", resume=True)


def test_weights_on_other_model_are_refused(tiny: Model, server: Any, tmp_path: Path) -> None:
    body = two_models(tiny, server, tmp_path).model_dump(mode="json", by_alias=True)
    body["data"]["examples"] = "examples.jsonl"
    body["steps"].insert(0, {"kind": "train", "arm": "lora"})
    body["steps"][2]["weights"] = "lora"
    with pytest.raises(BadInput, match=r"steps\[2\]: evaluate prompting-remote: model"):
        parse_plan(body)


def test_models_are_loaded_once_in_the_wanted_precision(tiny: Model, server: Any, tmp_path: Path) -> None:
    import torch

    plan = two_models(tiny, server, tmp_path)
    bases: dict[str, BaseModel] = {plan.model.name: tiny}
    obtained = ObtainedModels(bases=bases)
    folder = RunFolder.create(tmp_path / "run", plan)
    models = OpenRun(folder, plan, obtained, opening=Opening(dtype="float32")).models
    assert not models.is_loaded
    generator: Any = models.generator(None, plan.arms[0])
    assert generator.model.dtype == torch.float32
    assert models.generator(None, plan.arms[0]) is generator
    count = models.token_counter(tiny)
    own = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    text = "the north pier opens at six"
    assert count(text) == len(own.encode(text, add_special_tokens=False).ids)
    assert models.tokenizer(tiny) is models.tokenizer(tiny)
    remote = RemoteModel("tern-2", server.url)
    assert (models.tokenizer(remote), models.control_tokens(remote)) == (None, ())
    models.release()
    assert not models.is_loaded


def test_data_is_read_once_for_a_run_and_its_report(tiny: Model, server: Any, tmp_path: Path) -> None:
    """What was noted when it was read is reported when the run begins."""
    plan = two_models(tiny, server, tmp_path)
    rows = [{"prompt": f"berth {n}", "completion": "Aye."} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    files = plan.data.model_copy(update={"examples": tmp_path / "rows.jsonl"})
    plan = plan.model_copy(update={"data": files})
    data = read_data(plan)
    for file in tmp_path.glob("*.jsonl"):
        file.unlink()
    events: list[dict[str, Any]] = []
    run = carry_out(RunRequest(plan=plan, out=tmp_path / "run", data=data), events.append)
    assert [event["event"] for event in events].index("examples.read") == 0
    assert run.questions is data.split.test
    assert judge(run).data["guards"]["leakage"]["questions"] == 6


def test_embedder_runs_on_the_wanted_device(
    tiny: Model, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TUNEWISE_DEVICE holds for the embedder as for the model."""
    other = next(kind for kind in ("xpu", "mps") if kind not in torch_device().type)
    plan = two_models(tiny, server, tmp_path)
    context = opened_run(plan, RunFolder.create(tmp_path / "run", plan), tiny, embedder_model=tiny)
    monkeypatch.setenv("TUNEWISE_DEVICE", other)
    with pytest.raises(BadInput, match=f"TUNEWISE_DEVICE={other}"):
        _ = context.models.embedder
