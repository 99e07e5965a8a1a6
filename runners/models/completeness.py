"""Whether the files of a model folder are all there and whole: weights by their index, modules, tokenizer. No torch.

:func:`incomplete_files` names what is missing or cut off, read from the weight index, the headers of the safetensors files
and, for copies in the model hub's cache, the hub's list of files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from rag.errors import BadInput
from runners.models.fingerprint import read_json, refuse_code, weight_files

WEIGHTS = "model.safetensors"
WEIGHT_INDEX = "model.safetensors.index.json"
_SHARD_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
LOADED_NAMES = frozenset(
    (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        WEIGHT_INDEX,
    )
)
"""Files at the top of a model folder that change what is loaded: none may be missing where the hub lists it."""
_MODULES_WITH_CONFIG = ("Pooling", "Dense", "Transformer", "WordWeights", "LayerNorm", "CNN", "LSTM")
"""Modules of sentence-transformers that have a config.json in their folder (Normalize has no file at all)."""


def incomplete_files(folder: Path, listed: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Return the files of a model folder that are missing or cut off, with what is wrong; () for a complete one.

    Args:
        folder: the model folder.
        listed: files of the model and their sizes as the hub lists them; None where no list is known.
    """
    problems = dict.fromkeys(_weight_problems(folder))
    problems |= dict.fromkeys(_module_problems(folder))
    for name, size in sorted((listed or {}).items()):
        path = folder / name
        if path.is_file():
            if (actual := path.stat().st_size) != size:
                problems[f"{name} ({actual:,} of {size:,} bytes)"] = None
        elif name in LOADED_NAMES:
            problems[name] = None
    return tuple(problems)


def model_folder(name: str) -> Path | None:
    """Return the folder of a model that is named by its path, None for any other name; no weights are read.

    Raises:
        BadInput: nothing is there; or a file, such as a GGUF; or a folder without a config, with code, or not complete.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if name.startswith((".", "/", "~")):
            raise BadInput(
                f"model path {name!r} does not exist",
                "put the folder back there, or name another in a new plan",
            )
        return None
    if not path.is_dir():
        served = (
            " (a GGUF file can be asked from a server: openai:NAME@URL)" if path.suffix == ".gguf" else ""
        )
        raise BadInput(
            f"model {path} is a file", f"give the folder with config.json and .safetensors{served}"
        )
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        raise BadInput(f"model folder {path} has no config.json, so it is not a model")
    refuse_code(path)
    if problems := incomplete_files(path):
        raise BadInput(
            f"model folder {path} is incomplete: {name_files(problems)}",
            "copy or download the model again; every file that its weight index names is needed",
        )
    weight_files(path)
    return path


def name_files(problems: tuple[str, ...]) -> str:
    """Return missing files as text, the first five by name."""
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"{', '.join(problems[:5])}{more} {'is' if len(problems) == 1 else 'are'} missing or cut off"


def file_of(problem: str) -> str:
    """Return the file name of an entry of :func:`incomplete_files`."""
    return problem.partition(" (")[0]


def _weight_problems(folder: Path) -> list[str]:
    """Return the weight files that are missing or cut off.

    transformers loads ``model.safetensors`` where it is there, else every file that the weight index names.
    """
    if (folder / WEIGHTS).is_file():
        return _cut_files(folder, {WEIGHTS: set()})
    if (folder / WEIGHT_INDEX).is_file():
        try:
            return _cut_files(folder, _indexed_tensors(folder / WEIGHT_INDEX))
        except BadInput as error:
            return [f"{WEIGHT_INDEX} ({error.message})"]
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    shards = [match for name in names if (match := _SHARD_NAME.fullmatch(name))]
    # A shard without an index: its own name says how many there are.
    expected = {
        f"{s[1]}-{number:05}-of-{s[3]}.safetensors" for s in shards for number in range(1, int(s[3]) + 1)
    }
    missing = [WEIGHT_INDEX] if shards else []
    return missing + _cut_files(folder, {name: set[str]() for name in sorted(expected.union(names))})


def _indexed_tensors(index: Path) -> dict[str, set[str]]:
    """Return the weight files of an index, each with the names of its tensors."""
    files: dict[str, set[str]] = {}
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{index} has no weight_map")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or PurePosixPath(name).name != name:
            raise BadInput(f"{index} names {name!r}, which is not a file of its folder")
        files.setdefault(name, set()).add(tensor)
    return dict(sorted(files.items()))


def _cut_files(folder: Path, files: Mapping[str, set[str]]) -> list[str]:
    """Return the files that are missing, shorter than their header says, or lack one of the given tensors."""
    problems = []
    for name, tensors in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(name)
            continue
        size = path.stat().st_size
        header = _read_header(path)
        if header is None:
            problems.append(f"{name} (no whole header in its {size:,} bytes)")
            continue
        expected, stored = header
        if size != expected:
            problems.append(f"{name} ({size:,} of {expected:,} bytes)")
        elif lacking := sorted(tensors - stored):
            problems.append(f"{name} (without the tensor {lacking[0]})")
    return problems


def _read_header(path: Path) -> tuple[int, set[str]] | None:
    """Return the size that a safetensors file must have and its tensors' names; None when its header is cut or broken.

    The format: 8 bytes with the length of the header, the JSON header, and the data up to the largest offset.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        if size < start:
            return None
        try:
            header = json.loads(stream.read(start - 8))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
    return start + end, set(entries)


def _module_problems(folder: Path) -> list[str]:
    """Return the files of sentence-transformers modules that are missing."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        modules = [
            (str(m["type"]).rpartition(".")[2], str(m["path"])) for m in json.loads(file.read_text("utf-8"))
        ]
    except (ValueError, TypeError, KeyError) as error:
        return [f"{file.name} (damaged: {error!r})"]
    problems = []
    for kind, part in modules:
        if part and kind in _MODULES_WITH_CONFIG and not (folder / part / "config.json").is_file():
            problems.append(f"{part}/config.json")
        if part and kind == "Dense" and not (folder / part / WEIGHTS).is_file():
            problems.append(f"{part}/{WEIGHTS}")
    return problems
