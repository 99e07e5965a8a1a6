"""A planted case for tuning a retriever: questions name things by words that no document holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOODS = ("apples", "bricks", "copper", "dyes", "eggs", "flour", "grain", "hides")
ASKED_GOODS = ("pome", "masonry", "metal", "pigment", "ova", "meal", "cereal", "leather")
PIERS = ("amber", "birch", "coral", "dune", "elm", "fern", "gorse", "heath")
ASKED_PIERS = ("resin", "tree", "reef", "sand", "ulmus", "frond", "furze", "moor")
TEMPLATE_WORDS = (
    "the",
    "pier",
    "takes",
    "on",
    "day",
    "when",
    "may",
    "be",
    "landed",
    "at",
    "is",
    "taken",
    "?",
    ".",
)
NUMBERS = tuple(str(n) for n in range(64))


def words() -> list[str]:
    """Return the vocabulary, unknown token and padding first."""
    return ["?unk", "[PAD]", *GOODS, *ASKED_GOODS, *PIERS, *ASKED_PIERS, *TEMPLATE_WORDS, *NUMBERS]


def tokenizer() -> Any:
    """Return a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    word_level = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words())}, unk_token="?unk"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return word_level


def documents() -> list[dict[str, str]]:
    """Return 64 documents, one for each pier and kind of goods."""
    return [
        {
            "id": f"d{8 * p + g}",
            "title": f"d{8 * p + g}",
            "text": f"the {pier} pier takes {goods} on day {8 * p + g} .",
        }
        for p, pier in enumerate(PIERS)
        for g, goods in enumerate(GOODS)
    ]


def _question(number: int, form: int) -> str:
    pier, goods = ASKED_PIERS[number // 8], ASKED_GOODS[number % 8]
    forms = (f"when may {goods} be landed at {pier} ?", f"when is {goods} taken at {pier} ?")
    return forms[form]


def training_numbers() -> list[int]:
    """Return the documents that are trained on: five of each pier, every kind of goods among them."""
    return [n for n in range(64) if (n // 8 + n % 8) % 8 < 5]


def held_out_numbers() -> list[int]:
    """Return the other documents."""
    return [n for n in range(64) if n not in training_numbers()]


def example_rows() -> Iterator[dict[str, Any]]:
    """Yield two training examples for each document that is trained on."""
    for number in training_numbers():
        for form in (0, 1):
            yield {
                "messages": [
                    {"role": "user", "content": _question(number, form)},
                    {"role": "assistant", "content": f"on day {number} ."},
                ],
                "meta": {"doc_id": f"d{number}"},
            }


def question_rows() -> Iterator[dict[str, Any]]:
    """Yield a held-out question for each document that is not trained on."""
    for number in held_out_numbers():
        yield {
            "id": f"q{number}",
            "question": _question(number, number % 2),
            "answers": [str(number)],
            "doc_id": f"d{number}",
        }


def write_files(folder: Path) -> None:
    """Write documents.jsonl, examples.jsonl and questions.jsonl."""
    parts = {"documents": documents(), "examples": example_rows(), "questions": question_rows()}
    for name, rows in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")


def embedder(folder: Path, hidden: int = 32) -> Path:
    """Write an embedder of a BERT with one layer that knows nothing."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(words()),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=hidden,
        max_position_embeddings=64,
        pad_token_id=1,
        hidden_dropout_prob=0.1,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder
