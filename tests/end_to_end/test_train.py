"""`tunewise train` from the command line, on the real model: what it makes is reloaded without tunewise."""

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
    """A folder with a few examples of the shipped desk."""
    made = tmp_path_factory.mktemp("train")
    rows = (example / "examples.jsonl").read_text("utf-8").splitlines(keepends=True)
    (made / "rows.jsonl").write_text("".join(rows[:ROWS]), "utf-8")
    return made


@pytest.fixture(scope="module")
def train(folder: Path, tunewise: Any) -> Callable[..., dict[str, Any]]:
    """Train with a method and return what it printed as JSON."""

    def run(method: str) -> dict[str, Any]:
        flags = ("--examples", "rows.jsonl", "--method", method, "--out", method, "--epochs", 1, "--json")
        done = tunewise("train", *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "because" in done.stderr
        return dict(json.loads(done.stdout))

    return run


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_each_method_trains_and_its_result_loads_and_answers_by_itself(
    train: Callable[..., dict[str, Any]], folder: Path, method: str
) -> None:
    said = train(method)
    assert (said["schema"], said["method"], said["rows"]) == (1, method, ROWS)
    assert 0 < said["last_loss"] < 10
    assert not list(folder.glob(f".{method}*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # peft itself asks transformers for an attribute by its older name, whatever is loaded.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = reloaded(folder / method)
        first = json.loads((folder / "rows.jsonl").read_text("utf-8").splitlines()[0])
        assert asked(model, folder / method, first["messages"][:-1]).strip()
    assert sum(p.numel() for p in model.parameters()) > 134e6
    if method == "full":
        shutil.rmtree(folder / method)


def reloaded(folder: Path) -> Any:
    """Load an adapter with plain PEFT, or a model with plain transformers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from runners.models.resolve import resolve_model

    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(resolve_model("smollm2-135m-instruct").folder)
    return PeftModel.from_pretrained(base, folder)


def asked(model: Any, folder: Path, messages: list[dict[str, str]]) -> str:
    """Let a model answer by plain transformers, with the tokenizer and template beside its weights."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    made = model.generate(**asked, max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(made[0][asked["input_ids"].shape[1] :], skip_special_tokens=True))


def test_check_and_show_stop_before_the_first_step(folder: Path, tunewise: Any) -> None:
    flags = ("--examples", "rows.jsonl", "--check", "--show", 2, "--prompt", "Answer for the harbour desk.")
    done = tunewise("train", *flags, "--out", "none", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Answer for the harbour desk." in done.stdout
    first = json.loads((folder / "rows.jsonl").read_text("utf-8").splitlines()[0])
    assert all(turn["content"] in done.stdout for turn in first["messages"])
    assert not (folder / "none").exists()


def test_check_stops_on_what_would_spoil_the_training(folder: Path, tunewise: Any) -> None:
    row = {"prompt": "Tell me everything.", "completion": "word " * 5000}
    (folder / "long.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    done = tunewise("train", "--examples", "long.jsonl", "--check", cwd=folder)
    assert done.returncode == 3, done.stdout
    assert "Traceback" not in done.stderr
