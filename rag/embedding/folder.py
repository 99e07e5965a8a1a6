"""What the files of an embedder's folder say, read without loading a model. Imports no torch.

:class:`EmbedderFolder` reads the formats of sentence-transformers 2 to 6 (``modules.json``, the module folders,
``config_sentence_transformers.json``) and plain transformers folders. :func:`known_prompts` has the prompts of models
whose folders do not hold them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import canonical_json, sha256_file, sha256_text

UNLIMITED_TOKENS = 1 << 20
"""The window of an embedder that reads texts of any length."""
LEGACY_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags of sentence-transformers 2 to 5, in the order in which their vectors are joined."""
DOCUMENT_PROMPT_NAMES = ("document", "passage", "corpus")
"""Names of the prompt before a document, in the order of ``SentenceTransformer.encode_document``."""
_WITH_WEIGHTS = (
    "Transformer",
    "Dense",
    "LayerNorm",
    "StaticEmbedding",
    "LSTM",
    "CNN",
    "WeightedLayerPooling",
)
MODULE_KINDS = (*_WITH_WEIGHTS, "Pooling", "Normalize", "Dropout", "Router", "Asym")
"""The modules of sentence-transformers that are loaded; others are refused by name."""
WITHOUT_EFFECT = ("Normalize", "Dropout")
"""Modules that do not change a vector scaled to length 1, when they come last."""
_ROUTER_CONFIGS = ("router_config.json", "config.json")
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_HIDDEN_KEYS = ("hidden_size", "d_model", "dim", "n_embd")


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts that are put before a question and before a document, and where they are from."""

    query: str = ""
    document: str = ""
    source: str = ""
    """folder, setting, or the model card of the model that was known by name; "" where both are empty."""


@dataclass(frozen=True, slots=True)
class EmbedderModule:
    """One module of a folder: the name of its class, and its own folder."""

    kind: str
    folder: Path


_E5 = Prompts("query: ", "passage: ", "https://huggingface.co/intfloat/e5-small-v2#faq")
_E5_INSTRUCT = Prompts(
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
    source="https://huggingface.co/intfloat/multilingual-e5-large-instruct#usage",
)
_BGE_EN = Prompts(
    "Represent this sentence for searching relevant passages: ",
    source="https://huggingface.co/BAAI/bge-small-en-v1.5#model-list",
)
_BGE_ZH = Prompts(
    "为这个句子生成表示以用于检索相关文章：",
    source="https://huggingface.co/BAAI/bge-small-zh-v1.5#model-list",
)
PROMPTS_BY_NAME: Mapping[str, Prompts] = {
    r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?": _E5,
    r"multilingual-e5-large-instruct": _E5_INSTRUCT,
    r"bge-(small|base|large)-en(-v1\.5)?": _BGE_EN,
    r"bge-(small|base|large)-zh(-v1\.5)?": _BGE_ZH,
    r"snowflake-arctic-embed-(xs|s|m|l)": Prompts(
        _BGE_EN.query, source="https://huggingface.co/Snowflake/snowflake-arctic-embed-s#usage"
    ),
    r"mxbai-embed-large-v1": Prompts(
        _BGE_EN.query, source="https://huggingface.co/mixedbread-ai/mxbai-embed-large-v1#quickstart"
    ),
}
"""Prompts of models whose folder may lack them, by a pattern of the model's whole name in lower case."""


def known_prompts(names: Iterator[str]) -> Prompts | None:
    """Return the prompts of the first name that is known; an owner before a slash does not matter."""
    for name in names:
        short = name.rstrip("/").rpartition("/")[2].lower()
        for pattern, prompts in PROMPTS_BY_NAME.items():
            if re.fullmatch(pattern, short):
                return prompts
    return None


class EmbedderFolder:
    """The modules, prompts, window and files of one folder."""

    def __init__(self, path: Path, digest: Callable[[Path], str] = sha256_file) -> None:
        """Read and check the folder.

        Args:
            path: the folder.
            digest: returns the hex SHA-256 of a file; one that keeps hashes between starts saves reading all weights.

        Raises:
            BadInput: when it is damaged, names code to run, or holds no embedder that can be loaded safely.
        """
        self.path = path
        self._digest = digest
        self.config = read_object(path / "config_sentence_transformers.json")
        self.modules = self._modules()
        self._check()

    @cached_property
    def input_folder(self) -> Path:
        """The folder of the module that reads the text: its tokenizer is there."""
        if self.modules and self.modules[0].kind in ("Router", "Asym"):
            router = self.modules[0].folder
            structure = _router_config(router)["structure"]
            route = structure.get("document") or structure.get("passage") or next(iter(structure.values()))
            return router / str(route[0])
        return self.modules[0].folder if self.modules else self.path

    @cached_property
    def model_config(self) -> dict[str, Any]:
        """The transformer's ``config.json``; empty for a static embedding."""
        return read_object(self.input_folder / "config.json")

    @cached_property
    def transformer_settings(self) -> dict[str, Any]:
        """The settings of the Transformer module: maximum length, lower case."""
        for name in _TRANSFORMER_CONFIGS:
            if settings := read_object(self.input_folder / name):
                return settings
        return {}

    @cached_property
    def pooling_config(self) -> dict[str, Any]:
        """The settings of the Pooling module; those in ``1_Pooling`` where no module is listed."""
        listed = [module.folder for module in self.modules if module.kind == "Pooling"]
        if self.modules and not listed:
            return {}
        return read_object((listed or [self.path / "1_Pooling"])[0] / "config.json")

    @cached_property
    def pooling_modes(self) -> tuple[str, ...]:
        """How token vectors become one; the vectors of several modes are joined. Mean where nothing is said."""
        modes = self.pooling_config.get("pooling_mode")
        if modes is not None:
            return (modes,) if isinstance(modes, str) else tuple(map(str, modes))
        flags = tuple(
            mode for flag, mode in LEGACY_POOLING_FLAGS.items() if self.pooling_config.get(flag) is True
        )
        return flags or ("mean",)

    @cached_property
    def has_only_transformer(self) -> bool:
        """Whether the vector is a transformer's pooled output and nothing is applied to it but scaling."""
        kinds = [module.kind for module in self.modules]
        while kinds and kinds[-1] in WITHOUT_EFFECT:
            kinds.pop()
        return kinds == ["Transformer", "Pooling"] or not self.modules

    @cached_property
    def lowers_case(self) -> bool:
        """Whether texts are put in lower case by the module's settings and not by the tokenizer itself."""
        if not self.transformer_settings.get("do_lower_case"):
            return False
        normalizer = json.dumps(read_object(self.input_folder / "tokenizer.json").get("normalizer"))
        return not ('"lowercase": true' in normalizer or '"Lowercase"' in normalizer)

    @cached_property
    def declared_window(self) -> int:
        """Tokens of a text, special ones included, by the module's settings and the model's positions."""
        positions = self._positions
        limit = self.transformer_settings.get("max_seq_length")
        if limit is None and "pooling_mode" in self.pooling_config:
            # sentence-transformers 6 keeps the maximum length in the tokenizer's settings
            limit = read_object(self.input_folder / "tokenizer_config.json").get("model_max_length")
        return min(int(limit or positions), positions)

    @cached_property
    def window(self) -> int:
        """Tokens of a text, special ones included, that the model reads.

        RoBERTa and its relatives number positions from the padding token on, so that fewer remain for text.
        """
        window = self.declared_window
        if self.transformer_settings.get("max_seq_length") is None:
            limit = read_object(self.input_folder / "tokenizer_config.json").get("model_max_length")
            window = min(window, int(limit or UNLIMITED_TOKENS))
        if str(self.model_config.get("model_type")) in ("roberta", "xlm-roberta", "camembert", "mpnet"):
            window = min(window, self._positions - int(self.model_config.get("pad_token_id", 1) or 0) - 1)
        return window

    @cached_property
    def truncate_dim(self) -> int | None:
        """Dimensions that are kept of a vector, by the folder's settings."""
        value = self.config.get("truncate_dim")
        return int(value) if value else None

    def prompts(self, name: str = "") -> Prompts:
        """Return the prompts of the folder's settings, else those known for the model's name.

        Args:
            name: a name of the model, beside those that the folder itself tells.
        """
        stored = {
            key: value for key, value in (self.config.get("prompts") or {}).items() if value is not None
        }
        default_name = str(self.config.get("default_prompt_name") or "")
        default = str(stored.get(default_name) or "")
        document_names = [key for key in DOCUMENT_PROMPT_NAMES if stored.get(key)]
        query = str(stored.get("query") or "")
        document = str(stored[document_names[0]]) if document_names else ""
        # The default is for texts of either side that have no prompt of their own, but a question's never goes before
        # a document, nor a document's before a question.
        if not query and default_name not in DOCUMENT_PROMPT_NAMES:
            query = default
        if not document and "query" not in default_name.lower():
            document = default
        if query or document:
            return Prompts(query, document, "folder")
        return known_prompts(iter((name, *self._names()))) or Prompts()

    def dimension(self) -> int | None:
        """Return the length of a whole vector; None where only the loaded model tells."""
        kinds = [module.kind for module in self.modules] or ["Transformer", "Pooling"]
        if kinds[0] == "StaticEmbedding" and len(kinds) == 1:
            return _static_dimension(self.input_folder)
        if kinds[:2] != ["Transformer", "Pooling"]:
            return None
        hidden = next((self.model_config[key] for key in _HIDDEN_KEYS if self.model_config.get(key)), None)
        if hidden is None:
            return None
        dimension = int(hidden) * len(self.pooling_modes)
        for module in self.modules[2:]:
            if module.kind == "Dense":
                dimension = int(read_object(module.folder / "config.json")["out_features"])
            elif module.kind not in ("LayerNorm", *WITHOUT_EFFECT):
                return None
        return dimension

    def fingerprint(self, dimension: int, prompts: Prompts) -> str:
        """Return everything of the folder that decides a vector, as text."""
        weights, tokenizer = self._hashes
        prefixes = [prompts.document, prompts.query]
        pooling = "+".join(self.pooling_modes)
        text = (
            f"sha256:{weights} tokenizer:{tokenizer} "
            f"{dimension}d {self.declared_window} tokens {pooling} unit prefixes={prefixes!r}"
        )
        if self._modules_hash:
            text += f" modules:{self._modules_hash}"
        if self.pooling_config.get("include_prompt") is False:
            text += " prompt not pooled"
        return text + (" lower case" if self.lowers_case else "")

    def read_hashes(self) -> None:
        """Read the hashes of all weights now, so that a file that changes later is not taken for the loaded one."""
        _ = self._hashes, self._modules_hash

    def _modules(self) -> tuple[EmbedderModule, ...]:
        """Return the modules in their order; BadInput for those that are not loaded."""
        path = self.path / "modules.json"
        if not path.is_file():
            return ()
        try:
            entries = [
                (str(entry["type"]), str(entry["path"])) for entry in json.loads(path.read_text("utf-8"))
            ]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{path} is damaged: {error!r}") from error
        return tuple(
            EmbedderModule(self._kind(name, path), self._inside(self.path, folder))
            for name, folder in entries
        )

    def _kind(self, name: str, source: Path) -> str:
        """Return the class name of a module type; BadInput when it is not loaded."""
        kind = name.rpartition(".")[2]
        if not name.startswith("sentence_transformers."):
            raise BadInput(f"{source} names its own code ({name}), which tunewise never runs")
        if kind not in MODULE_KINDS:
            raise BadInput(
                f"the embedder folder {self.path} has a module that is not supported: {kind}",
                f"supported are {', '.join(MODULE_KINDS)}",
            )
        return kind

    def _inside(self, folder: Path, part: str) -> Path:
        """Return a folder below another; BadInput for a path that leaves it."""
        inside = folder / part
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"the embedder folder {self.path} names a module outside of it: {part!r}")
        return inside

    def _check(self) -> None:
        """Raise BadInput for what cannot be loaded: pickled weights, code, another kind of model, no tokenizer."""
        stored_type = self.config.get("model_type", "SentenceTransformer")
        if stored_type != "SentenceTransformer":
            raise BadInput(f"{self.path} is a {stored_type}, not an embedder")
        for folder, kind in self._leaves():
            has_weights = any(folder.glob("*.safetensors"))
            if kind in _WITH_WEIGHTS and not has_weights:
                raise BadInput(
                    f"the embedder folder {folder} has no model.safetensors", "only safetensors are loaded"
                )
            config = read_object(folder / "config.json")
            if kind == "Transformer" and ("auto_map" in config or not config):
                raise BadInput(
                    f"the embedder folder {folder} has no plain config.json (or one that names code to run)"
                )
            activation = str(config.get("activation_function", "torch.nn."))
            if kind == "Dense" and not activation.startswith("torch.nn."):
                raise BadInput(
                    f"{folder / 'config.json'} names its own code ({activation}), which tunewise never runs"
                )

    def _leaves(self) -> Iterator[tuple[Path, str]]:
        """Yield folder and kind of every module, those of routers included."""
        for module in self.modules or (EmbedderModule("Transformer", self.path),):
            yield module.folder, module.kind
            if module.kind in ("Router", "Asym"):
                for name, kind in _router_config(module.folder)["types"].items():
                    inner = self._inside(module.folder, str(name))
                    yield inner, self._kind(str(kind), module.folder)

    @cached_property
    def _hashes(self) -> tuple[str, str]:
        """The hashes of weights and tokenizer of the module that reads the text."""
        return self._weights_hash(self.input_folder), self._digest(self.input_folder / "tokenizer.json")

    @cached_property
    def _modules_hash(self) -> str:
        """A hash over kind, settings and weights of every module; "" where the transformer's are all there is."""
        rows: list[list[Any]] = []
        if self.has_only_transformer:
            return ""
        for folder, kind in self._leaves():
            name = folder.relative_to(self.path).as_posix()
            settings = read_object(folder / "config.json") if kind != "Transformer" else {}
            rows.append(
                [
                    kind,
                    name,
                    settings,
                    self._weights_hash(folder) if any(folder.glob("*.safetensors")) else "",
                ]
            )
        return sha256_text(canonical_json(rows))

    def _weights_hash(self, folder: Path) -> str:
        """Return the SHA-256 of a folder's weights: of the one file, or over the hashes of several."""
        files = sorted(folder.glob("*.safetensors"))
        if (folder / "model.safetensors") in files:
            return self._digest(folder / "model.safetensors")
        return sha256_text("".join(map(self._digest, files)))

    @cached_property
    def _positions(self) -> int:
        return int(self.model_config.get("max_position_embeddings") or UNLIMITED_TOKENS)

    def _names(self) -> Iterator[str]:
        """Yield the names by which the folder's model may be known."""
        yield self.path.name
        # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        yield from (part.split("--")[-1] for part in self.path.parts if part.startswith("models--"))
        yield str(self.model_config.get("_name_or_path") or "")


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file, empty where there is no file; BadInput when it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is damaged: {error}") from error


def _router_config(folder: Path) -> dict[str, Any]:
    """Return types and structure of a router; BadInput where they are missing."""
    for name in _ROUTER_CONFIGS:
        config = read_object(folder / name)
        if config.get("types") and config.get("structure"):
            return config
    raise BadInput(f"{folder} has no readable router_config.json")


def _static_dimension(folder: Path) -> int | None:
    """Return the width of a static embedding, from the header of its safetensors file."""
    with (folder / "model.safetensors").open("rb") as stream:
        # safetensors: 8 bytes with the length of the header, the JSON header, the data.
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    entry = header.get("embedding.weight") or header.get("embeddings")
    return int(entry["shape"][1]) if entry else None
