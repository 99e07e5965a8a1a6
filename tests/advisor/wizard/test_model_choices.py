"""The models that the wizard offers: what each can do here, or why it cannot be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.profile import Profile
from advisor.wizard.model_choices import doubt_about, hosted_offers, model_offers
from runners.models.availability import find_availability

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
    last = model_offers(Profile.of({**LAPTOP, "ram_gib": 4}), {})[-1]
    assert "GiB, the RAM gives 3.6" in last.closed
    names = [offer.name for offer in model_offers(Profile.of({**LAPTOP, "ram_gib": 256}), {})]
    assert "qwen3-30b-a3b-instruct-2507" in names, "few of its parameters are used at a time"
    assert "qwen3-32b" not in names, "it takes seconds for a token without a GPU"


def test_hosted_offers_name_the_variable_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the key; models whose key is there come first; all are closed where data must stay local."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    offers = hosted_offers(Profile.of({"runs_on": "provider"}))
    assert offers[0].name.startswith("openai:claude-")
    assert "key in ANTHROPIC_API_KEY" in offers[0].text
    assert "USD per million tokens" in offers[0].text
    assert not any("secret" in offer.text or "gpt-4o-mini" in offer.name for offer in offers)
    assert any("no key: set OPENAI_API_KEY" in offer.text for offer in offers)
    local = hosted_offers(Profile.of({"data_must_stay_local": True}))
    assert {offer.closed for offer in local} == {"the data must stay on your own machines"}


def test_offer_leaves_out_methods_without_package() -> None:
    """The other methods are offered."""
    small = Profile.of({**LAPTOP, "model": "smollm2-135m-instruct"})
    first = model_offers(small, {"qlora": "needs bitsandbytes, missing"})[0]
    assert "full, lora fit" in first.text


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with no model and the hub not allowed; returns the folder of the hub's cache."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEWISE_ALLOW_HUB", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("size", [2.0, 16.0])
def test_offers_say_where_each_model_comes_from(away: Path, size: float) -> None:
    """What can be had here comes before what cannot, and what is too large comes last."""
    place = {**LAPTOP, "ram_gib": size, "model": "smollm2-135m-instruct"}
    offers = model_offers(Profile.of(place), {})
    assert offers[0].name == "smollm2-135m-instruct"
    assert "93 MB from the package registry" in offers[0].text
    groups = [(bool(offer.closed), not offer.tunable, offer.rank) for offer in offers[1:] if not offer.closed]
    assert groups == sorted(groups)
    assert [bool(offer.closed) for offer in offers] == sorted(bool(offer.closed) for offer in offers)
    away_offers = [offer for offer in offers if offer.rank == 2 and not offer.closed]
    assert away_offers
    assert all("on the hub (--allow-hub); " in offer.text for offer in away_offers)


def test_allowed_hub_gives_sizes(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes a parameter; the id is that of the catalogue."""
    assert "is not on this machine: it is google/gemma-2-2b-it (5.2 GB)" in doubt_about("gemma-2-2b-it")
    assert not find_availability("gemma-2-2b-it").obtainable
    monkeypatch.setenv("TUNEWISE_ALLOW_HUB", "1")
    source = find_availability("Gemma-2-2B-it")
    assert (source.state, source.hub, source.text) == ("hub", "google/gemma-2-2b-it", "5.2 GB from the hub")
    assert "first fetches 5.2 GB" in doubt_about("gemma-2-2b-it")
    assert find_availability("nothing-here").state == "unknown"
    assert find_availability("openai:m@http://127.0.0.1:1/v1").state == "endpoint"
    assert not doubt_about("smollm2-135m-instruct")


def test_model_folder_is_here(away: Path, tmp_path: Path) -> None:
    """A folder of one's own needs nothing."""
    assert find_availability(str(tmp_path)).text == "here"
