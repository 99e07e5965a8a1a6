"""The models that the wizard offers: what can be done with each here, or why it cannot be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.wizard.model_choices import model_offers

LAPTOP = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0, "ram_gib": 16, "cpu_cores": 4}


@pytest.mark.parametrize("machine", [LAPTOP, {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 24}, {}])
def test_the_present_model_first_and_a_screenful_in_all(machine: dict[str, Any]) -> None:
    """Each once; what is closed comes last and says why."""
    found = model_offers(Profile.of({**machine, "model": "smollm2-135m-instruct"}), {})
    assert found[0].name == "smollm2-135m-instruct"
    assert len({offer.name for offer in found}) == len(found) <= 10
    closed = [bool(offer.closed) for offer in found]
    assert closed == sorted(closed)
    assert any(closed) == bool(machine)


def test_a_reason_names_both_sizes() -> None:
    """What it needs and what there is."""
    last = model_offers(Profile.of(LAPTOP), {})[-1]
    assert "GiB, the RAM gives 14.4" in last.closed


def test_a_method_without_its_package_is_not_promised() -> None:
    """The rest still is."""
    first = model_offers(Profile.of(LAPTOP), {"qlora": "needs bitsandbytes, missing"})[0]
    assert "full, lora fit" in first.text
