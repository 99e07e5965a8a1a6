"""`tunewise adapters`: the table, the JSON, the exit code for a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli import main

BASE = {"name": "little", "source": "path", "fingerprint": "ab" * 32}


def weights(folder: Path) -> Path:
    """Write a folder that looks like an adapter, whole but for its tokenizer."""
    from rag.files import write_manifest

    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}', "utf-8")
    config = {"method": "lora", "variant": "dora"}
    score = {"scores": {"combined": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 30}}}
    write_manifest(folder, "adapter", {"base": BASE, "config": config, "scores": score, "data": {"rows": 7}})
    return folder


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["adapters", *arguments])
    return int(left.value.code or 0)


def test_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = weights(tmp_path / "runs" / "desk" / "adapters" / "lora-s0")
    assert call("list", str(tmp_path), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["adapters"]
    assert (found["base"], found["rank"], found["variant"], found["rows"]) == ("little", 8, "dora", 7)
    assert "tokenizer.json" in found["problem"]
    assert call("list", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "little" in out
    assert "combined 0.50 0.40–0.60" in out
    assert call("show", str(folder)) == 3
    shown = capsys.readouterr()
    assert "lora dora, rank 8" in shown.out
    assert "cannot be used as it is" in shown.err


def test_nothing_there_is_no_mistake_and_a_wrong_place_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("list") == 0
    assert "no tuned weights here" in capsys.readouterr().out
    assert call("list", "nowhere") == 3
    assert call("show", str(tmp_path)) == 3
