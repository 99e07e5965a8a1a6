"""`tunewise adapters`: the table, the JSON, and the exit code for a damaged adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli import main

BASE = {"name": "little", "source": "path", "fingerprint": "ab" * 32}


def write_adapter(folder: Path) -> Path:
    """Write a folder that looks like an adapter, complete but for its tokenizer."""
    from rag.files import write_manifest

    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}', "utf-8")
    config = {"method": "lora", "variant": "dora", "kernels": "auto"}
    score = {"scores": {"combined": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 30}}}
    write_manifest(folder, "adapter", {"base": BASE, "config": config, "scores": score, "data": {"rows": 7}})
    return folder


def adapters_exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["adapters", *arguments])
    return int(stopped.value.code or 0)


def test_adapters_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_adapter(tmp_path / "runs" / "desk" / "adapters" / "lora-s0")
    assert adapters_exit_code("list", str(tmp_path), "--json") == 0
    (adapter,) = json.loads(capsys.readouterr().out)["adapters"]
    assert (adapter["base"], adapter["rank"], adapter["variant"], adapter["rows"]) == ("little", 8, "dora", 7)
    assert "tokenizer.json" in adapter["problem"]
    assert adapters_exit_code("list", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "little" in out
    assert "combined 0.50 0.40–0.60" in out
    assert adapters_exit_code("show", str(folder)) == 3
    shown = capsys.readouterr()
    assert "lora dora, rank 8" in shown.out
    assert "cannot be used as it is" in shown.err


def test_no_adapters_exits_0_and_missing_folder_exits_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert adapters_exit_code("list") == 0
    assert "no tuned weights here" in capsys.readouterr().out
    assert adapters_exit_code("list", "nowhere") == 3
    assert adapters_exit_code("show", str(tmp_path)) == 3
