"""Fingerprints of model folders, and a check that nothing in them runs code. Imports no torch.

:func:`fingerprint` hashes weights (from the safetensors files), tokenizer and chat template; :func:`refuse_code` refuses
models that bring code of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import canonical_json, sha256_text
from runners.models.digests import stored_digest

_CODE_KEYS = ("auto_map", "custom_pipelines", "_attn_implementation_internal")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return a folder's safetensors files in name order; BadInput when there is none.

    Where a sentence-transformers folder holds none itself, those of its module folders.
    """
    paths = tuple(sorted(folder.glob("*.safetensors"))) or module_weight_files(folder)
    if not paths:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".gguf"})
        only = f", only {', '.join(others[:3])}" if others else ""
        raise BadInput(
            f"{folder} has no .safetensors weights{only}",
            "convert the model to safetensors first; other formats can run code and are never loaded",
        )
    return paths


def module_weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files in the module folders of a sentence-transformers folder, () for other models."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return ()
    try:
        names = [str(module["path"]) for module in json.loads(modules.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{modules} is damaged: {error!r}") from error
    return tuple(path for name in names if name for path in sorted((folder / name).rglob("*.safetensors")))


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model reads, by its `config.json`; None where that does not say.

    The text part of a multimodal model says it for itself; GPT-2 and its relatives call it `n_positions`.
    """
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        for name in ("max_position_embeddings", "n_positions"):
            if isinstance(part.get(name), int):
                return int(part[name])
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file of a model folder, {} when the file is absent."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} should be a JSON object, found {type(value).__name__}")
    return value


def chat_template(folder: Path) -> str:
    """Return the chat template of a folder, "" when there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several templates with names, as in older tokenizers
        template = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}.get("default")
    return template if isinstance(template, str) else ""


def tokenizer_hash(folder: Path) -> str:
    """Return a SHA-256 over the vocabulary, merges and added tokens of ``tokenizer.json``.

    Padding and truncation settings are left out: saving a tokenizer changes them, and they do not affect the tokens.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() and (folder / "modules.json").is_file():
        inner = sorted(folder.glob("*/**/tokenizer.json"))
        file = inner[0] if inner else file
    if not file.is_file():
        raise BadInput(f"{folder} has no tokenizer.json", "save the model's fast tokenizer into the folder")
    return stored_digest("tokenizer", (file,), lambda: _tokens_hash(file))


def _tokens_hash(file: Path) -> str:
    """Return the SHA-256 over what determines the tokens in a ``tokenizer.json``."""
    tokenizer = read_json(file)
    if not tokenizer:
        raise BadInput(f"{file} is empty", "save the model's fast tokenizer into the folder")
    return sha256_text(
        canonical_json({k: tokenizer.get(k) for k in ("model", "added_tokens", "pre_tokenizer")})
    )


def template_hash(folder: Path) -> str:
    """Return the SHA-256 of the chat template, "" when there is none."""
    template = chat_template(folder)
    return sha256_text(template) if template else ""


def fingerprint(folder: Path) -> str:
    """Return one SHA-256 (hex) over weights (those of an embedder's modules included), tokenizer and chat template.

    Two folders with equal tensors, tokens and template have equal fingerprints, whatever program saved them. The files are
    read again only after they changed: see :mod:`runners.models.digests`.
    """
    files = weight_files(folder)
    weights = stored_digest("weights", files, lambda: _weights_hash(files))
    parts = [weights, tokenizer_hash(folder), template_hash(folder)]
    if modules := tuple(sorted(set(module_weight_files(folder)) - set(files))):
        parts.append(stored_digest("modules", modules, lambda: _weights_hash(modules)))
    return sha256_text(canonical_json(parts))


def refuse_code(folder: Path) -> None:
    """Raise BadInput when a config in the folder refers to code of its own; such models are never loaded."""
    for path in sorted(folder.glob("*config*.json")):
        if code_keys := [k for k in _CODE_KEYS if read_json(path).get(k)]:
            raise BadInput(
                f"{path} names its own code ({code_keys[0]}), which tunewise never runs",
                "choose a model whose architecture is part of transformers",
            )
    modules = folder / "modules.json"
    if not modules.is_file():
        return
    try:
        kinds = [str(m["type"]) for m in json.loads(modules.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{modules} is damaged: {error!r}") from error
    if foreign := [k for k in kinds if not k.startswith("sentence_transformers.")]:
        raise BadInput(f"{modules} names its own code ({foreign[0]}), which tunewise never runs")


def tensor_sizes(folder: Path) -> list[int]:
    """Return the number of values in each tensor of a folder, read from the headers only."""
    sizes = []
    for path in weight_files(folder):
        with path.open("rb") as stream:
            # safetensors: 8 bytes with the length of the header, the JSON header, the data.
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        sizes += [math.prod(e["shape"]) for name, e in header.items() if name != "__metadata__"]
    return sizes


def _weights_hash(files: tuple[Path, ...]) -> str:
    """Return the SHA-256 over all tensors of the files."""
    tensors: list[tuple[str, str, list[int], str]] = []
    for path in files:
        tensors.extend(_tensor_hashes(path))
    return sha256_text(canonical_json(sorted(tensors)))


def _tensor_hashes(path: Path) -> list[tuple[str, str, list[int], str]]:
    """Return name, dtype, shape and SHA-256 of every tensor in a safetensors file.

    The file is 8 bytes with the length of the header, the JSON header, and the data that its offsets refer to.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 8 + int.from_bytes(data[:8], "little")
        try:
            header = json.loads(data[8:start])
            view = memoryview(data)
            hashes = []
            for name, entry in header.items():
                if name != "__metadata__":
                    first, last = entry["data_offsets"]
                    with view[start + first : start + last] as part:
                        hashes.append(
                            (name, entry["dtype"], entry["shape"], hashlib.sha256(part).hexdigest())
                        )
            view.release()
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path} is damaged: its safetensors header cannot be read ({error})") from error
    return hashes
