"""Digests of plans and identities of trainings are those of 0.2.0: its runs and checkpoints go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners import train
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.train_config import TrainConfig
from runners.preflight import device_probe

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
    """The digest was computed by 0.2.0."""
    plan = parse_plan(PLAN)
    assert plan.digest() == "e1022187bc62f61b43e5693b5d0140d759e7e8293e5ce8cf6bf63357ec080b3c"
    assert list(plan.steps[0].model_dump())[:3] == ["kind", "arm", "method"]
    assert parse_plan(plan.model_dump(mode="json", by_alias=True)).digest() == plan.digest()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainConfig(), "5fe7167fc78827af1387a60a384fa572783a1bd4b189c3ccc98c539a3fd3bf24"),
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
            "6e22a5646e07a68671bd33ff3abf0c9fca3613fbdc1eb04b96c53fbf173b94de",
        ),
    ],
    ids=["defaults", "settings"],
)
def test_training_identity_is_unchanged(config: TrainConfig, expected: str) -> None:
    """The hashes were computed by 0.2.0."""
    assert train._identity(config, ANY, ROWS, []) == expected


def test_adapter_beyond_the_bounds_is_continued_unchanged(tmp_path: Path) -> None:
    """A pissa adapter of rank 512 is saved with rank 1024 and twice its alpha."""
    adapter = {"r": 1024, "lora_alpha": 2_000_000, "target_modules": ["v_proj", "q_proj"], "use_rslora": True}
    (tmp_path / train.PEFT_CONFIG_FILE).write_text(json.dumps(adapter), "utf-8")
    config, _ = train.settings_from_adapter(TrainConfig(init_adapter=tmp_path))
    assert (config.rank, config.alpha, config.variant) == (1024, 2e6, "rslora")
    assert config.targets == ("q_proj", "v_proj")
    assert device_probe.config_from_json(json.loads(json.dumps(config.to_json()))) == config
