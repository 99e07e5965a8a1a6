"""Plans, adapters and runs of the version in which TrainConfig was a dataclass: same digests, opened and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.files import canonical_json, sha256_text
from runners import train
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.train_config import TrainConfig
from runners.preflight import device_probe
from runners.train import fit

PLAN: dict[str, Any] = {
    "name": "p",
    "choice": "lora",
    "model": {"name": "m"},
    "weights": {"token_f1": 1},
    "data": {"examples": "e.jsonl", "questions": "q.jsonl"},
    "steps": [
        {"kind": "train", "arm": "lora"},
        {
            "kind": "train",
            "arm": "full",
            "method": "full",
            "epochs": 3,
            "learning_rate": 1e-5,
            "seeds": [3, 4],
            "reasons": {"epochs": "few"},
        },
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
    ],
}
ANY = Model(name="any", folder=Path("any"), kind="base", fingerprint="f", source="path", license="")
ROWS = {"rows": 3}


def test_plan_digest_is_unchanged() -> None:
    """The digest was computed by the previous version, whose train step had its own settings."""
    plan = parse_plan(PLAN)
    assert plan.digest() == "e1022187bc62f61b43e5693b5d0140d759e7e8293e5ce8cf6bf63357ec080b3c"
    assert list(plan.steps[0].model_dump())[:3] == ["kind", "arm", "method"]
    assert parse_plan(plan.model_dump(mode="json", by_alias=True)).digest() == plan.digest()


@pytest.mark.parametrize(
    ("config", "recorded", "expected"),
    [
        (TrainConfig(), (), "5fe7167fc78827af1387a60a384fa572783a1bd4b189c3ccc98c539a3fd3bf24"),
        (
            TrainConfig(
                epochs=3.0,
                rank=4,
                alpha=8.0,
                learning_rate=1e-2,
                batch_tokens=400,
                checkpoint_steps=2,
                targets=("q_proj", "v_proj"),
                variant="dora",
            ),
            (),
            "6e22a5646e07a68671bd33ff3abf0c9fca3613fbdc1eb04b96c53fbf173b94de",
        ),
        (
            TrainConfig(),
            ("bfb0864bf3c65692c8258c3e4b65321871cbde8a197831e98568f386aa5a5ecd",),
            "bfb0864bf3c65692c8258c3e4b65321871cbde8a197831e98568f386aa5a5ecd",
        ),
        (
            TrainConfig(epochs=1),
            ("fe913c0166c1deb21aa47033e872d883cb8e69f14c6cc3d45b162a4f8fa41c17",),
            "fe913c0166c1deb21aa47033e872d883cb8e69f14c6cc3d45b162a4f8fa41c17",
        ),
        (TrainConfig(), ("another",), "5fe7167fc78827af1387a60a384fa572783a1bd4b189c3ccc98c539a3fd3bf24"),
    ],
    ids=["defaults", "settings", "whole numbers", "one whole number", "another run"],
)
def test_training_identity_is_unchanged(
    config: TrainConfig, recorded: tuple[str, ...], expected: str
) -> None:
    """The hashes were computed by the previous version, which hashed epochs=2 and epochs=2.0 differently."""
    assert train._identity(config, ANY, ROWS, [], recorded) == expected


def test_finished_run_with_integer_settings_is_not_retrained(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    """Its manifest has the identity that the previous version gave epochs=1 and alpha=8."""
    config, out = TrainConfig(epochs=1.0, rank=4, alpha=8.0, batch_tokens=400), tmp_path / "out"
    result = fit(examples, config, tiny, out)
    path = out / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    settings = config.to_json() | {"epochs": 1, "alpha": 8, "checkpoint_steps": 0, "init_adapter": None}
    del settings["kernels"]  # the previous version had no choice of kernels
    data = {key: value for key, value in manifest["data"].items() if key != "files"}
    earlier = sha256_text(canonical_json([settings, None, tiny.fingerprint, data, []]))
    assert earlier != manifest["identity"]
    path.write_text(path.read_text("utf-8").replace(manifest["identity"], earlier), "utf-8")
    events: list[dict[str, Any]] = []
    assert fit(examples, config, tiny, out, on_event=events.append, resume=True) == result
    assert [event["event"] for event in events] == ["train.skip"]
    fit(examples, config.replace(seed=1), tiny, out, on_event=events.append, resume=True)
    assert "train.restart" in [event["event"] for event in events]


def test_adapter_beyond_the_bounds_is_continued_unchanged(tmp_path: Path) -> None:
    """A pissa adapter of rank 512 is saved with rank 1024 and twice its alpha."""
    adapter = {"r": 1024, "lora_alpha": 2_000_000, "target_modules": ["v_proj", "q_proj"], "use_rslora": True}
    (tmp_path / train.PEFT_CONFIG_FILE).write_text(json.dumps(adapter), "utf-8")
    config, _ = train.settings_from_adapter(TrainConfig(init_adapter=tmp_path))
    assert (config.rank, config.alpha, config.variant) == (1024, 2e6, "rslora")
    assert config.targets == ("q_proj", "v_proj")
    assert device_probe.config_from_json(json.loads(json.dumps(config.to_json()))) == config
