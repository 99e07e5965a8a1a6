"""Golden profiles: advice changes only with a reviewed file and a line in the changelog."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import rank_methods

FILE = Path(__file__).with_name("golden.yaml")
GOLDEN: list[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden_choice(case: dict[str, Any]) -> None:
    assert rank_methods(Profile.of(case["answers"])).choice == case["choice"], case["because"]


def test_golden_file_covers_every_method() -> None:
    """At least 40 situations with unique names, each with a reason."""
    assert len(GOLDEN) >= 40
    assert {case["choice"] for case in GOLDEN} == set(METHOD_BY_NAME)
    assert len({case["name"] for case in GOLDEN}) == len(GOLDEN)
    assert all(case["because"] for case in GOLDEN)


def test_golden_change_is_in_changelog(root: Path) -> None:
    """The digest of names, answers and choices is under "Advice changed"."""
    advice = "\n".join(
        f"{case['name']} {sorted(case['answers'].items())} {case['choice']}" for case in GOLDEN
    )
    mark = hashlib.sha256(advice.encode()).hexdigest()[:8]
    parts = (root / "CHANGELOG.md").read_text("utf-8").split("### Advice changed")[1:]
    changes = "\n".join(part.partition("\n## ")[0] for part in parts)
    assert f"golden {mark}" in changes, f"say what changed, and that it is: golden {mark}"
