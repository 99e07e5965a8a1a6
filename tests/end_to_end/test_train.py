"""`tunewise train` on the real model: its result loads with plain PEFT and transformers."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

ROWS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: Path) -> Path:
    """A folder with a few of the shipped examples."""
    folder = tmp_path_factory.mktemp("train")
    rows = (example / "examples.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(rows[:ROWS]), "utf-8")
    return folder


@pytest.fixture(scope="module")
def train(folder: Path, tunewise: Any) -> Callable[..., dict[str, Any]]:
    """Return a function that trains with a method, and returns the JSON that it prints."""

    def run(method: str) -> dict[str, Any]:
        flags = ("--examples", "rows.jsonl", "--method", method, "--out", method, "--epochs", 1, "--json")
        done = tunewise("train", *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "because" in done.stderr
        return dict(json.loads(done.stdout))

    return run


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_trained_weights_load_and_answer_without_tunewise(
    train: Callable[..., dict[str, Any]], folder: Path, method: str
) -> None:
    summary = train(method)
    assert (summary["schema"], summary["method"], summary["rows"]) == (1, method, ROWS)
    assert 0 < summary["last_loss"] < 10
    assert not list(folder.glob(f".{method}*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # peft reads an attribute of transformers by its deprecated name, whatever is loaded.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = load_plain(folder / method)
        first = json.loads((folder / "rows.jsonl").read_text("utf-8").splitlines()[0])
        assert generate(model, folder / method, first["messages"][:-1]).strip()
    assert sum(p.numel() for p in model.parameters()) > 134e6
    if method == "full":
        shutil.rmtree(folder / method)


def load_plain(folder: Path) -> Any:
    """Load an adapter with plain PEFT, or a model with plain transformers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from runners.models.resolve import resolve_model

    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(resolve_model("smollm2-135m-instruct").folder)
    return PeftModel.from_pretrained(base, folder)


def generate(model: Any, folder: Path, messages: list[dict[str, str]]) -> str:
    """Generate an answer with plain transformers, with the tokenizer and template next to the weights."""
    from transformers import AutoTokenizer, BatchEncoding

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    assert isinstance(inputs, BatchEncoding)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def test_check_and_show_print_rows_without_training(folder: Path, tunewise: Any) -> None:
    flags = ("--examples", "rows.jsonl", "--check", "--show", 2, "--prompt", "Answer for the harbour desk.")
    done = tunewise("train", *flags, "--out", "none", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Answer for the harbour desk." in done.stdout
    first = json.loads((folder / "rows.jsonl").read_text("utf-8").splitlines()[0])
    assert all(turn["content"] in done.stdout for turn in first["messages"])
    assert not (folder / "none").exists()


def test_check_fails_on_a_row_that_is_too_long(folder: Path, tunewise: Any) -> None:
    row = {"prompt": "Tell me everything.", "completion": "word " * 5000}
    (folder / "long.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    done = tunewise("train", "--examples", "long.jsonl", "--check", cwd=folder)
    assert done.returncode == 3, done.stdout
    assert "Traceback" not in done.stderr
