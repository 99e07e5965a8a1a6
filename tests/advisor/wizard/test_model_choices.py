"""The models that the wizard offers: what each can do here, or why it cannot be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.wizard.model_choices import model_offers

LAPTOP = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0, "ram_gib": 16, "cpu_cores": 4}


@pytest.mark.parametrize("machine", [LAPTOP, {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 24}, {}])
def test_offers_start_with_current_model_and_fit_a_screen(machine: dict[str, Any]) -> None:
    """Each model once; closed ones come last with a reason."""
    offers = model_offers(Profile.of({**machine, "model": "smollm2-135m-instruct"}), {})
    assert offers[0].name == "smollm2-135m-instruct"
    assert len({offer.name for offer in offers}) == len(offers) <= 10
    closed = [bool(offer.closed) for offer in offers]
    assert closed == sorted(closed)
    assert any(closed) == bool(machine)


def test_closed_offer_names_needed_and_available_memory() -> None:
    """What it needs and what there is."""
    last = model_offers(Profile.of(LAPTOP), {})[-1]
    assert "GiB, the RAM gives 14.4" in last.closed


def test_offer_leaves_out_methods_without_package() -> None:
    """The other methods are offered."""
    first = model_offers(Profile.of(LAPTOP), {"qlora": "needs bitsandbytes, missing"})[0]
    assert "full, lora fit" in first.text
