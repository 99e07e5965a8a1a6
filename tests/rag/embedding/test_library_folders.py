"""Folders of sentence-transformers of every format: each vector is the library's own, prompts and dimensions included."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rag.embedding.embedder import LIBRARY_MARK, MAX_PATH_DIFFERENCE, Embedder, length_sample
from rag.embedding.folder import PROMPTS_BY_NAME, EmbedderFolder, known_prompts
from rag.errors import BadInput
from rag.files import sha256_file
from rag.index import Index
from rag.settings import IndexSettings

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Module

SENTENCES = """
[PAD] [UNK] [CLS] [SEP] [MASK] the a ferry dog fare harbour boat sea deck euro adult child ticket leaves at nine seven
when does cost what is open closed island bridge query : passage title none | text search result task hund fähre hafen
kostet wann der die das
"""
WORDS = tuple(SENTENCES.split())
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
TEXTS = [
    "the ferry leaves at nine",
    "dog",
    "what does the adult ticket cost at the harbour when the sea is open",
    "the boat is closed : the bridge is open",
    "die fähre kostet das ticket wann",
]


Saved = Callable[..., Path]


def word_tokenizer(special: bool = True) -> Tokenizer:
    """A tokenizer of whole words; with ``special`` it adds [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def transformer_folder(folder: Path, kind: str, tokenizer: Tokenizer | None = None, **sizes: Any) -> Path:
    """Save a small model of a type with a tokenizer, as transformers does."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(7)
    config = AutoConfig.for_model(kind, **{**SIZES, **sizes})
    AutoModel.from_config(config).float().save_pretrained(folder)
    names = {
        name: f"[{name[:-6].upper()}]"
        for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer or word_tokenizer(), model_max_length=48, **names
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a model of these modules with the installed sentence-transformers; "bert" and the like are transformers."""

    def save(
        *modules: Any, kind: str = "bert", window: int = 24, tokenizer: Any = None, **options: Any
    ) -> Path:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer

        sizes = options.pop("sizes", {})
        folder = tmp_path / f"saved-{kind}-{len(list(tmp_path.iterdir()))}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = []
            if kind != "none":
                raw = transformer_folder(tmp_path / f"{folder.name}-raw", kind, tokenizer, **sizes)
                first = [Transformer(str(raw), max_seq_length=window)]
            torch.manual_seed(11)
            made = [
                module() if callable(module) and not isinstance(module, torch.nn.Module) else module
                for module in modules
            ]
            SentenceTransformer(modules=[*first, *made], device="cpu", **options).save_pretrained(str(folder))
        return folder

    return save


@pytest.fixture
def older(saved: Callable[..., Path]) -> Callable[..., Path]:
    """A BERT's folder in the format of sentence-transformers 2 to 5."""

    def save(mode: str = "mean_tokens", window: int = 24, kind: str = "bert", **config: Any) -> Path:
        from sentence_transformers.sentence_transformer.modules import Pooling

        folder = saved(Pooling(32, "mean"), kind=kind, window=window)
        flags = (
            "cls_token",
            "max_tokens",
            "mean_tokens",
            "mean_sqrt_len_tokens",
            "weightedmean_tokens",
            "lasttoken",
        )
        pooling = {"word_embedding_dimension": 32, **{f"pooling_mode_{flag}": flag == mode for flag in flags}}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        settings = {"max_seq_length": window, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
        version = {"__version__": {"sentence_transformers": "2.2.2", "transformers": "4.30.0"}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(version | config))
        return folder

    return save


def library_vectors(folder: Path, texts: list[str], prompt: str = "", task: str = "document") -> np.ndarray:
    """Unit vectors by the library as it is, all texts in one padded batch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encoded = model.encode(texts, prompt=prompt, task=task, normalize_embeddings=True)
    return np.asarray(encoded, dtype=np.float32)


def pooling(mode: Any = "mean", width: int = 32) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.modules import Pooling

        return Pooling(width, mode)

    return make


def dense(out: int = 16, width: int = 32) -> torch.nn.Module:
    from sentence_transformers.base.modules import Dense

    return Dense(width, out)


def layer_norm() -> torch.nn.Module:
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    module = LayerNorm(32)
    torch.nn.init.normal_(module.norm.weight)
    return module


def normalize() -> torch.nn.Module:
    from sentence_transformers.base.modules import Normalize

    return Normalize()


def static(width: int = 12) -> Module:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return StaticEmbedding(word_tokenizer(special=False), embedding_dim=width)


def assert_library_vectors(embedder: Embedder, folder: Path) -> None:
    wanted = library_vectors(folder, TEXTS)
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == wanted.shape == (len(TEXTS), embedder.dimension)
    assert np.abs(vectors - wanted).max() <= MAX_PATH_DIFFERENCE
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01, (
        "the texts must differ for the comparison to mean something"
    )
    assert np.array_equal(vectors, np.concatenate([embedder.encode([text]) for text in TEXTS])), (
        "depends on others"
    )


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "weightedmean", "lasttoken", "mean_sqrt_len_tokens"])
def test_folder_of_sentence_transformers_6_with_each_pooling(saved: Saved, mode: str) -> None:
    folder = saved(pooling(mode))
    embedder = Embedder(folder)
    assert embedder.path == ("packed" if mode in ("mean", "cls") else "library")
    assert embedder.max_tokens == 22
    assert_library_vectors(embedder, folder)


def test_joined_pooling_has_the_dimension_of_all_its_modes(saved: Saved) -> None:
    folder = saved(pooling(("cls", "mean")))
    assert Embedder(folder).dimension == 64
    assert_library_vectors(Embedder(folder), folder)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens", "lasttoken"])
def test_folder_of_older_formats_with_each_pooling(older: Saved, mode: str) -> None:
    folder = older(mode)
    embedder = Embedder(folder)
    assert embedder.path == ("packed" if mode in ("mean_tokens", "cls_token") else "library")
    assert_library_vectors(embedder, folder)


def test_folder_has_the_same_fingerprint_in_the_older_and_the_present_format(
    saved: Saved, older: Saved
) -> None:
    present, before = Embedder(saved(pooling())), Embedder(older())
    assert present.fingerprint == before.fingerprint
    assert "32d 24 tokens mean unit prefixes=['', '']" in before.fingerprint


def test_dense_layer_norm_and_normalize_are_applied(saved: Saved) -> None:
    folder = saved(pooling(), dense(), normalize())
    embedder = Embedder(folder)
    assert (embedder.dimension, embedder.path) == (16, "library")
    assert_library_vectors(embedder, folder)
    assert_library_vectors(Embedder(normed := saved(pooling(), layer_norm())), normed)
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()}, folder / "2_Dense" / "model.safetensors"
    )
    assert Embedder(folder).fingerprint != embedder.fingerprint, "the weights of every module count"


def test_hashes_come_from_the_given_function(saved: Saved) -> None:
    """Runs give one that keeps hashes between starts, so that weights of many GB are read once."""
    folder = saved(pooling(), dense())
    asked: list[str] = []

    def digest(path: Path) -> str:
        asked.append(path.relative_to(folder).as_posix())
        return sha256_file(path)

    assert Embedder(folder, digest=digest).fingerprint == Embedder(folder).fingerprint
    assert {"model.safetensors", "2_Dense/model.safetensors", "tokenizer.json"} <= set(asked)


def test_static_embedding_reads_texts_of_any_length(saved: Saved) -> None:
    folder = saved(static, kind="none")
    embedder = Embedder(folder)
    assert (embedder.dimension, embedder.path) == (12, "library")
    assert_library_vectors(embedder, folder)
    long = " ".join(WORDS * 40)
    assert np.allclose(embedder.encode([long]), library_vectors(folder, [long]), atol=1e-5)
    assert embedder.cut == 0


def test_router_sends_questions_and_documents_to_their_own_modules(saved: Saved) -> None:
    from sentence_transformers.base.modules import Router

    folder = saved(Router.for_query_document([static()], [static()]), kind="none")
    embedder = Embedder(folder)
    assert_library_vectors(embedder, folder)
    questions = embedder.encode(TEXTS, query=True)
    assert np.allclose(questions, library_vectors(folder, TEXTS, task="query"), atol=1e-5)
    assert not np.allclose(questions, embedder.encode(TEXTS), atol=0.1)


@pytest.mark.parametrize("kind", ["mpnet", "modernbert", "distilbert", "xlm-roberta"])
def test_other_encoders(saved: Saved, kind: str) -> None:
    sizes: dict[str, Any] = {"pad_token_id": 1} if kind in ("mpnet", "xlm-roberta") else {}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    if kind == "modernbert":
        sizes = {
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "local_attention": 8,
        }
    folder = saved(pooling(), kind=kind, sizes=sizes)
    assert Embedder(folder).path == ("packed" if kind == "xlm-roberta" else "library")
    assert_library_vectors(Embedder(folder), folder)


def test_decoder_with_last_token_pooling_and_an_instruction(saved: Saved) -> None:
    """As Qwen3-Embedding: causal attention, the vector of the last token, an instruction before questions."""
    tokenizer = word_tokenizer(special=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    sizes = {"num_key_value_heads": 2, "head_dim": 8}
    prompts = {"query": "task : search query :", "document": ""}
    folder = saved(
        pooling("lasttoken"), normalize, kind="qwen3", tokenizer=tokenizer, sizes=sizes, prompts=prompts
    )
    embedder = Embedder(folder)
    assert embedder.path == "library"
    assert_library_vectors(embedder, folder)
    assert np.allclose(
        embedder.encode(TEXTS, query=True), library_vectors(folder, TEXTS, prompts["query"]), atol=1e-4
    )


def test_text_without_tokens_has_a_vector_of_zeros(saved: Saved) -> None:
    tokenizer = word_tokenizer(special=False)
    embedder = Embedder(saved(pooling("max"), tokenizer=tokenizer))
    assert np.linalg.norm(embedder.encode(["", "dog"]), axis=1) == pytest.approx([0, 1], abs=1e-5)


def test_unigram_tokenizer_in_another_language(saved: Saved) -> None:
    """As multilingual E5: XLM-RoBERTa with the pieces of sentencepiece."""
    letters = [(letter, -4.0 - n / 10) for n, letter in enumerate("▁abcdefghijklmnopqrstuvwxyzäöüß")]
    pieces = [
        ("<s>", 0.0),
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁die", -1.0),
        ("▁fähre", -1.5),
        *letters,
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = saved(pooling(), kind="xlm-roberta", tokenizer=tokenizer, sizes={"pad_token_id": 1}, window=40)
    texts = ["die fähre", "wann fährt die fähre über den fluß", "öl"]
    vectors = Embedder(folder).encode(texts)
    assert np.abs(vectors - library_vectors(folder, texts)).max() <= MAX_PATH_DIFFERENCE


def test_prompts_of_the_folder_are_put_before_questions_and_documents(saved: Saved) -> None:
    prompts = {"query": "query : ", "passage": "passage : "}
    folder = saved(pooling(), prompts=prompts)
    embedder = Embedder(folder)
    assert np.allclose(embedder.encode(TEXTS), library_vectors(folder, TEXTS, prompts["passage"]), atol=1e-5)
    questions = embedder.encode(TEXTS, query=True)
    assert np.allclose(questions, library_vectors(folder, TEXTS, prompts["query"]), atol=1e-5)
    assert not np.allclose(questions, embedder.encode(TEXTS), atol=1e-3)
    assert embedder.max_tokens == 20
    plain = embedder.configured(query_prompt="", document_prompt="")
    assert np.allclose(plain.encode(TEXTS), library_vectors(folder, TEXTS), atol=1e-5)
    assert plain.fingerprint != embedder.fingerprint


@pytest.mark.parametrize(
    ("config", "query", "document"),
    [
        ({"prompts": {"query": "q", "document": "d"}}, "q", "d"),
        ({"prompts": {"search": "s"}, "default_prompt_name": "search"}, "s", "s"),
        ({"prompts": {"my_query": "s"}, "default_prompt_name": "my_query"}, "s", ""),
        ({"prompts": {"query": "q", "corpus": "c", "passage": ""}}, "q", "c"),
        ({"prompts": {"query": "q", "document": None}}, "q", ""),
        ({}, "", ""),
    ],
)
def test_choice_among_stored_prompts(older: Saved, config: dict[str, Any], query: str, document: str) -> None:
    prompts = EmbedderFolder(older(**config)).prompts()
    assert (prompts.query, prompts.document) == (query, document)


def test_prompts_known_by_name_are_used_where_the_folder_has_none(older: Saved, tmp_path: Path) -> None:
    plain = older()
    named = plain.rename(tmp_path / "e5-small-v2")
    embedder = Embedder(named)
    assert (embedder.prompts.query, embedder.prompts.document) == ("query: ", "passage: ")
    assert embedder.prompts.source.startswith("https://huggingface.co/intfloat/e5-small-v2")
    assert Embedder(named, query_prompt="", document_prompt="").prompts.query == ""
    cached = tmp_path / "models--BAAI--bge-base-en-v1.5" / "snapshots" / "abc"
    cached.parent.mkdir(parents=True)
    assert EmbedderFolder(named.rename(cached)).prompts().query.startswith("Represent this sentence")
    assert known_prompts(iter(["BAAI/bge-m3", "all-MiniLM-L6-v2", "my-e5-small"])) is None
    assert all(prompts.source.startswith("https://") for prompts in PROMPTS_BY_NAME.values())


def test_dimensions_are_truncated_and_scaled_again(saved: Saved) -> None:
    folder = saved(pooling(), truncate_dim=8)
    embedder = Embedder(folder)
    wanted = library_vectors(saved(pooling()), TEXTS)[:, :8]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert embedder.dimension == 8
    assert np.allclose(embedder.encode(TEXTS), wanted, atol=1e-5)
    assert embedder.configured(truncate_dim=4).encode(TEXTS).shape == (len(TEXTS), 4)
    with pytest.raises(BadInput, match=r"truncate_dim is 33, but vectors of .* have 32 dimensions"):
        embedder.configured(truncate_dim=33)


def test_text_longer_than_the_window_is_counted_and_no_part_is_lost(saved: Saved) -> None:
    embedder = Embedder(saved(pooling(), window=12))
    start = "the ferry leaves at nine " * 8
    one, other = embedder.encode([start + "dog " * 30, start + "harbour " * 30])
    assert embedder.cut == 2
    assert np.abs(one - other).max() > 0.01
    parts = embedder._parts(["word" * 2000 + " the dog" * 30, "dog"], "")[0]
    assert all(embedder.count_tokens(part) <= 10 for part in parts)
    assert "".join(parts[:-1]) == "word" * 2000 + " the dog" * 30


def test_paths_are_compared_on_the_texts_of_the_index(older: Saved, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for n, text in enumerate(TEXTS):
        (documents / f"{n}.txt").write_text(text)
    embedder = Embedder(older(window=40))
    assert Index.build(tmp_path / "index", documents, embedder).remarks == ()
    record = Index.open(tmp_path / "index", embedder).encoding
    assert record["path"] == "packed"
    assert record["check"]["difference"] <= MAX_PATH_DIFFERENCE
    assert (record["check"]["texts"], record["max_seq_length"], record["dtype"]) == (
        len(TEXTS),
        40,
        "float32",
    )
    assert length_sample([*"cba", "long", "middle one"], 3) == ["a", "c", "middle one"]


def test_library_is_used_where_the_packed_encoder_disagrees(older: Saved, tmp_path: Path) -> None:
    """A setting that sentence-transformers reads from the module, and the packed path does not know."""
    folder = older(window=40)
    documents = tmp_path / "documents"
    documents.mkdir()
    for n, text in enumerate(TEXTS):
        (documents / f"{n}.txt").write_text(text)
    module = json.loads((folder / "sentence_bert_config.json").read_text())
    module["config_args"] = {"hidden_act": "relu"}
    (folder / "sentence_bert_config.json").write_text(json.dumps(module))
    events: list[dict[str, Any]] = []
    embedder = Embedder(folder)
    report = Index.build(tmp_path / "index", documents, embedder, on_event=events.append)
    assert "embedded by sentence-transformers: the packed encoder is not used" in report.remarks[0]
    assert [event["path"] for event in events if event["event"] == "index.encoder"] == ["library"]
    index = Index.open(tmp_path / "index", Embedder(folder))
    assert index.fingerprint == embedder.fingerprint + LIBRARY_MARK
    assert index.encoding["path"] == "library"
    question = library_vectors(folder, [TEXTS[0]])[0]
    for hit in index.search(TEXTS[0]):
        assert hit.dense == pytest.approx(float(index.vectors([hit.chunk.id])[0] @ question), abs=1e-4)
    wanted = library_vectors(folder, [f"{n}.\n{text}" for n, text in enumerate(TEXTS)])
    stored = index.vectors([chunk.id for chunk in index.chunks])
    assert np.allclose(stored, wanted, atol=1e-4)
    (documents / "0.txt").write_text("the deck is open")
    assert Index.update(tmp_path / "index", documents, Embedder(folder)).embedded == 1
    assert Index.open(tmp_path / "index", Embedder(folder)).encoding["path"] == "library"


def test_index_stores_its_prompts_and_dimensions(saved: Saved, tmp_path: Path) -> None:
    folder = saved(pooling(), prompts={"query": "query : ", "document": "passage : "}, window=40)
    documents = tmp_path / "documents"
    documents.mkdir()
    for n, text in enumerate(TEXTS):
        (documents / f"{n}.txt").write_text(text)
    settings = IndexSettings(truncate_dim=6, document_prompt="title : none | text : ")
    Index.build(tmp_path / "index", documents, Embedder(folder), settings)
    index = Index.open(tmp_path / "index", Embedder(folder))
    assert (index.dimension, index.settings) == (6, settings)
    assert index.encoding["query_prompt"] == "query : "
    assert index.encoding["document_prompt"] == "title : none | text : "
    question = library_vectors(folder, [TEXTS[0]], "query : ")[0, :6]
    question /= np.linalg.norm(question)
    for hit in index.search(TEXTS[0]):
        passage = library_vectors(
            folder, [f"{hit.chunk.title}.\n{hit.chunk.text}"], "title : none | text : "
        )[0, :6]
        assert hit.dense == pytest.approx(float(passage @ question) / np.linalg.norm(passage), abs=1e-4)
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    config["prompts"]["query"] = "search : "
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="the prompt before questions was 'query : ' and is 'search : '"):
        Index.open(tmp_path / "index", Embedder(folder))


def test_folders_that_cannot_be_loaded_safely_are_refused(saved: Saved, older: Saved) -> None:
    folder = saved(pooling(), dense())
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"2_Dense has no model\.safetensors"):
        Embedder(folder)
    folder = saved(pooling(), dense())
    settings = json.loads((folder / "2_Dense" / "config.json").read_text())
    (folder / "2_Dense" / "config.json").write_text(
        json.dumps(settings | {"activation_function": "mine.Act"})
    )
    with pytest.raises(BadInput, match=r"its own code \(mine\.Act\)"):
        Embedder(folder)
    folder = older()
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace("models.Pooling", "models.CLIPModel"))
    with pytest.raises(BadInput, match="a module that is not supported: CLIPModel"):
        Embedder(folder)
    (folder / "modules.json").write_text(
        modules.replace("sentence_transformers.models.Pooling", "os.Pooling")
    )
    with pytest.raises(BadInput, match="names its own code"):
        Embedder(folder)
    (folder / "modules.json").write_text(modules.replace("1_Pooling", "../1_Pooling"))
    with pytest.raises(BadInput, match="outside of it"):
        Embedder(folder)
    (folder / "modules.json").write_text(modules)
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    with pytest.raises(BadInput, match="is a SparseEncoder, not an embedder"):
        Embedder(folder)
