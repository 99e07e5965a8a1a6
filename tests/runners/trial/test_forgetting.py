"""Forgetting: reported when it is more than noise, silent when nothing changed, measured only once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.data.examples import Example
from runners.models import resolve
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import RunFolder, read_journal
from runners.runs.opened import OpenRun
from runners.trial import forgetting
from tests.support.opened import opened_run


def plan(tiny: Model, **settings: Any) -> Plan:
    """Return a plan with one tuned arm over the tiny model."""
    return parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": str(tiny.folder)},
            "data": {"examples": "e.jsonl"},
            "steps": [
                {"kind": "train", "arm": "lora"},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"style": 1},
            "forgetting": {"prompts": 8, "max_new_tokens": 6, **settings},
        }
    )


def context(tiny: Model, adapter: Path, folder: Path, **settings: Any) -> OpenRun:
    """Return a run whose arm's weights exist already."""
    tuned_plan = plan(tiny, **settings)
    run = RunFolder.create(folder / "run", tuned_plan)
    shutil.copytree(adapter, run.adapter("lora", 0))
    return opened_run(tuned_plan, run, tiny)


@pytest.fixture(scope="module")
def trained_base(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model after a short training on the neutral passages: only a model that knows something can forget it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("taught") / "model"
    shutil.copytree(tiny.folder, folder)
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.encode(text)[:256] for text in forgetting.neutral_passages()]
    batch = torch.tensor([row[: min(map(len, ids))] for row in ids])
    optimizer = torch.optim.AdamW(net.parameters(), 2e-2)
    for _ in range(20):
        net(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.bfloat16().save_pretrained(folder)
    return resolve.resolve_model(str(folder))


@pytest.fixture(scope="module")
def make_adapter(
    trained_base: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a factory of adapters trained for a few steps at some learning rate."""
    from runners.plan.train_config import TrainConfig
    from runners.train import fit

    def train(rate: float, epochs: float) -> Path:
        out = tmp_path_factory.mktemp("made") / "out"
        fit(
            examples[:4],
            TrainConfig(epochs=epochs, rank=4, learning_rate=rate, batch_tokens=400),
            trained_base,
            out,
        )
        return out

    return train


def test_forgetting_is_reported_and_nothing_asked_twice(
    trained_base: Model, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    at_work = context(trained_base, make_adapter(0.1, 8.0), tmp_path)
    table = forgetting.measure_forgetting(at_work)
    (row,) = table["arms"]
    assert (row["arm"], row["arms"], row["seeds"], row["n"]) == ("lora", ["lora"], [0], 8)
    assert row["loss_after"] > row["loss_before"] + 0.2
    assert row["loss_interval"]["low"] > 0
    assert row["warned"]
    assert row["text"].startswith(
        "lora lost some of the model's general ability: its loss on general text rose from"
    )
    journal = at_work.folder.path / "trial" / "forgetting.jsonl"
    rows = read_journal(journal)
    assert len(rows) == 2 * (12 + 8)
    text = journal.read_text("utf-8").splitlines()
    journal.write_text("\n".join(text[:25]) + "\n" + text[25][:40] + "\n", "utf-8")  # cut off in the middle
    assert forgetting.measure_forgetting(at_work) == table
    assert sorted(map(repr, read_journal(journal))) == sorted(map(repr, rows))


def test_unchanged_weights_give_no_warning(
    trained_base: Model, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [
        {
            "prompt": text,
            "instruction_id_list": ["punctuation:no_comma", "x:y"][:many],
            "kwargs": [{}, {}][:many],
        }
        for text, many in (("Say hi.", 1), ("long " * 300, 1), ("Say it.", 2))
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    table = forgetting.measure_forgetting(
        context(trained_base, make_adapter(1e-6, 1.0), tmp_path, file=str(file))
    )
    (row,) = table["arms"]
    assert abs(row["loss_interval"]["difference"]) < forgetting.MIN_LOSS_RISE
    assert (row["warned"], row["text"], row["n"]) == (False, "", 1)
    assert (table["prompts"], table["too_long"], table["left_out"], table["unknown"]) == (1, 1, 1, {"x:y": 1})


def compared(
    was: list[float], now: list[float], kind: str = "prompt", again: Sequence[float] = ()
) -> dict[str, Any]:
    """Return the table row for two columns of values; `again` are the values of a second seed after tuning."""
    tuned_plan = parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": "m"},
            "data": {},
            "steps": [],
            "weights": {"style": 1},
        }
    )
    before, after, second = (
        [{"kind": kind, "id": str(n), "value": v} for n, v in enumerate(x)] for x in (was, now, again)
    )
    after, seeds = [*after, *second], (0, 1) if again else (0,)
    return forgetting._compare(tuned_plan, "lora", seeds, before, after)


def test_only_drop_beyond_noise_gives_warning() -> None:
    few = [1.0] * 20 + [0.0] * 20
    lost = compared(few, [0.0] * 12 + [1.0] * 8 + [0.0] * 20)
    assert lost["warned"]
    assert "it follows 8 of 40 general instructions, the base 20" in lost["text"]
    assert not compared(few, [0.0] * 3 + [1.0] * 18 + [0.0] * 19)["warned"]
    assert not compared(few, few)["warned"]
    assert not compared(few, [1.0] * 40)["warned"]
    steady = [3.0 + n / 10 for n in range(12)]
    assert not compared(steady, [v + 0.001 for v in steady], "loss")["warned"]
    assert not compared(steady, [v - 0.5 for v in steady], "loss")["warned"]
    assert compared(steady, [v + 0.1 for v in steady], "loss")["warned"]


def test_forgetting_averages_all_seeds_prompt_by_prompt() -> None:
    few = [1.0] * 20 + [0.0] * 20
    lost = compared(few, few, again=[0.0] * 40)
    assert (lost["seeds"], lost["n"], lost["followed_after"]) == ([0, 1], 40, 0.25)
    assert lost["warned"]
    assert lost["text"] == (
        "lora lost some of the model's general ability: it follows 10 of 40 general instructions, the base 20 "
        "(mean of 2 training seeds)"
    )
    odd = compared(few, few, again=[0.0] * 19 + [1.0] + [0.0] * 20)
    assert "follows 10.5 of 40" in odd["text"]


def test_forgetting_can_be_disabled_and_bad_file_is_refused(tiny: Model, tmp_path: Path) -> None:
    assert forgetting.tuned_arms(plan(tiny)) == ("lora",)
    assert forgetting.tuned_arms(plan(tiny, prompts=0)) == ()
    (tmp_path / "own.jsonl").write_text('{"prompt": "x"}', "utf-8")
    with pytest.raises(BadInput, match=r"own\.jsonl:1"):
        forgetting.check_forgetting_file(plan(tiny, file=str(tmp_path / "own.jsonl")))
    forgetting.check_forgetting_file(plan(tiny, prompts=0, file=str(tmp_path / "own.jsonl")))
