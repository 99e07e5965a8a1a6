"""A run whose plan holds the model in 4 bits: every arm, the forgetting test and later questions answer from nf4."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from advisor.report.data import report_of_run
from advisor.report.markdown import report_markdown
from advisor.verdict.run_records import RunRecords
from rag.errors import CannotRun
from runners.data.examples import Example
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models import resolve
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import QUANTIZED_ANSWERS
from runners.resources.device import MEMORY_ENV
from runners.run_folder import read_journal
from runners.runs.opened import OpenRun
from runners.runs.run import load
from runners.trial import execute

TOKENS = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Model:
    """A Llama whose layers are as wide as nf4's blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "base"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    vocabulary = len(read_json(folder / "tokenizer.json")["model"]["vocab"]) + 3
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return resolve.resolve_model(str(folder))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, base: Model, examples: Sequence[Example]) -> Plan:
    folder = tmp_path_factory.mktemp("data")
    rows = [json.dumps({"messages": list(example.messages)}) for example in examples]
    (folder / "examples.jsonl").write_text("\n".join(rows), "utf-8")
    asked = [{"question": f"Is gate {n} of hall {n + 3} open at dawn?", "answers": ["Yes"]} for n in range(6)]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)), "utf-8")
    train = {"kind": "train", "arm": "qlora", "method": "qlora", "epochs": 1.0, "learning_rate": 0.02}
    return parse_plan(
        {
            "name": "narrow",
            "choice": "qlora",
            "model": {"name": str(base.folder), "quantization": "nf4"},
            "data": {
                "examples": str(folder / "examples.jsonl"),
                "questions": str(folder / "questions.jsonl"),
                "near_repeats": "leave_out",
            },
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 2},
                train,
                {"kind": "evaluate", "arm": "qlora", "weights": "qlora"},
            ],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 2, "max_new_tokens": 4},
            "max_new_tokens": TOKENS,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    return execute.run_plan(plan, tmp_path_factory.mktemp("runs") / "run").path


def reference(base: Model, adapter: Path | None, prompts: Sequence[Any]) -> list[str]:
    """Answer one by one with transformers, bitsandbytes and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding, BitsAndBytesConfig

    from runners.inference.weights import dtype_for

    dtype = dtype_for()[0]
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=dtype, quantization_config=four_bit, device_map={"": "cpu"}
    )
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    answers = []
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert isinstance(inputs, BatchEncoding)
        inputs.pop("token_type_ids", None)
        row = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, eos_token_id=2)
        answers.append(
            str(tokenizer.decode(row[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
        )
    return answers


def test_every_arm_of_the_run_answers_from_nf4(run: Path, base: Model) -> None:
    rows = read_journal(run / "trial" / "answers.jsonl")
    opened = OpenRun.open(run)
    for arm in ("prompting", "few-shot", "qlora"):
        first = next(row for row in rows if row["arm"] == arm)
        question = first["prompt"][-1]["content"]
        adapter = run / "adapters" / "qlora-s0" if arm == "qlora" else None
        (expected,) = reference(base, adapter, [first["prompt"]])
        assert opened.ask([question], opened.arm(arm))[0].text == expected
        generator: Any = opened.models.generator(adapter, opened.arm(arm))
        kinds = {type(module).__name__ for module in generator.model.modules()}
        assert "Linear4bit" in kinds
    assert sum(event["event"] == "step.done" for event in opened.folder.events()) == 5


def test_run_and_report_say_that_answers_are_from_nf4(run: Path, plan: Plan) -> None:
    notes = [event["reason"] for event in load(run).folder.events() if event.get("event") == "plan.note"]
    assert QUANTIZED_ANSWERS in notes
    report = report_of_run(RunRecords.read(load(run).folder, plan))
    assert QUANTIZED_ANSWERS in report.warnings
    assert "4 bits" in report_markdown(report)


def test_adapter_is_exported_and_checked_on_the_base_in_four_bits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(run, ExportRequest(to="peft", out=tmp_path / "peft", arm="qlora"))
    assert (tmp_path / "peft" / "adapter_model.safetensors").is_file()
    result = export(run, ExportRequest(to="merged", out=tmp_path / "merged", arm="qlora"))
    assert any("the base was loaded in 4 bits" in note for note in result.notes)
    monkeypatch.setenv(MEMORY_ENV, "0.0001")
    with pytest.raises(CannotRun, match="merging in float32 takes about"):
        export(run, ExportRequest(to="merged", out=tmp_path / "again", arm="qlora"))


def test_quantization_is_left_out_of_plans_in_16_bits(plan: Plan) -> None:
    wide = plan.model_copy(update={"model": plan.model.model_copy(update={"quantization": "none"})})
    assert "quantization" not in wide.model_dump(mode="json")["model"]
    assert plan.model_dump(mode="json")["model"]["quantization"] == "nf4"
    assert wide.digest() != plan.digest()
    older = wide.model_dump(mode="json", by_alias=True)
    assert parse_plan(older).digest() == wide.digest()
