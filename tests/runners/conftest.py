"""A model small enough to train in a second, and an index small enough to build in one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.models import hub, resolve
from runners.models.resolve import Model
from tests.support.limits import HANG_S
from tests.support.processor_times import LONG_LIVED

os.environ.update(hub.offline_variables())

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM = "You answer for the ferry desk in one sentence."
PLACES = ("the north pier", "the ticket hall", "the lounge", "berth nine", "the bicycle rack", "the car deck")
NAMES = (
    "Amber",
    "Birch",
    "Copper",
    "Dunlin",
    "Elder",
    "Falcon",
    "Garnet",
    "Heron",
    "Indigo",
    "Juniper",
    "Kelp",
    "Lantern",
)
HOURS = ("six", "seven", "eight", "nine", "ten", "noon")


def make_example(number: int) -> Example:
    """Return the numbered example: a system turn, a question and an answer of varied length."""
    place, hour = PLACES[number % len(PLACES)], HOURS[number // len(PLACES) % len(HOURS)]
    extra = " and closes late" * (number % 3)
    turns = [("system", SYSTEM), ("user", f"When does {place} open at {hour}?")]
    turns.append(("assistant", f"Yes, {place} opens at {hour}{extra}. Shall I note it?"))
    return Example(tuple({"role": role, "content": text} for role, text in turns), {}, number + 1)


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    """Thirty-six examples in one style."""
    return tuple(make_example(i) for i in range(36))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, examples: Sequence[Example]) -> Model:
    """A Llama made from a config with a byte-level BPE tokenizer, resolved from its folder."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny(folder, examples, seed=0)
    return resolve.resolve_model(str(folder))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, examples: Sequence[Example]) -> Model:
    """A model of the same shape and tokenizer with other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    build_tiny(folder, examples, seed=1)
    return resolve.resolve_model(str(folder))


@pytest.fixture(scope="session")
def smollm() -> Model:
    """The real base model, downloaded once into the ordinary cache."""
    return resolve.resolve_model("smollm2-135m-instruct")


def build_tiny(folder: Path, examples: Sequence[Example], seed: int) -> None:
    """Write a tiny model folder: config, safetensors, tokenizer, chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([m["content"] for e in examples for m in e.messages], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)


class Warm:
    """A process with torch imported that forks a child for each order (warm.py); one child at a time."""

    def __init__(self) -> None:
        root = str(Path(hub.__file__).parents[2])
        more = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
        script = [sys.executable, "-P", str(Path(__file__).with_name("warm.py"))]
        self.process = subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **more}
        )
        assert self._heard()["ready"]

    def start(self, **order: Any) -> int:
        """Give an order and return the child's pid."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._heard()["pid"])

    def wait(self) -> int:
        """Return the child's exit code when it has ended, minus the signal when one killed it."""
        return int(self._heard()["code"])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate(timeout=HANG_S)

    def _heard(self) -> dict[str, int]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """The process that forks children."""
    process = Warm()
    LONG_LIVED.append(process.process.pid)
    yield process
    LONG_LIVED.remove(process.process.pid)
    process.close()


class WordEncoder:
    """A bag of hashed words instead of an embedding model: one token per word, deterministic, instant."""

    name, fingerprint, dimension, max_tokens = "words", "words-1", 64, 60

    def __init__(self) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(self.tokenizer.encode(text).ids)

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> Any:
        """Return one unit row per text."""
        import numpy as np

        rows = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def words() -> WordEncoder:
    """An encoder for tests that build an index of their own."""
    return WordEncoder()


@pytest.fixture(scope="session")
def piers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small documents, one fact each."""
    folder = tmp_path_factory.mktemp("piers") / "documents"
    folder.mkdir()
    for number in range(12):
        text = f"# {NAMES[number]} Pier\n\nThe {NAMES[number]} Pier has {number + 20} berths for visitors.\n"
        (folder / f"pier{number:02}.md").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="session")
def make_retriever(tmp_path_factory: pytest.TempPathFactory, piers: Path) -> Callable[..., Any]:
    """Return the maker of retrievers over the piers, with the settings of the plan's index step."""
    from rag.grounding.refusal import RefusalThreshold
    from rag.index import Index
    from runners.arms.retriever import Retriever
    from runners.plan.steps import IndexStep

    folder, encoder = tmp_path_factory.mktemp("piers") / "index", WordEncoder()
    Index.build(folder, piers, encoder)
    never = RefusalThreshold(weights={}, bias=1.0, how="default")

    def make(threshold: RefusalThreshold = never, **settings: Any) -> Retriever:
        index = Index.open(folder, encoder)
        return Retriever(index, IndexStep(**settings), threshold, encoder.count_tokens)

    return make


@pytest.fixture(scope="session")
def pier_examples() -> tuple[Example, ...]:
    """One example for each pier, a refusal in the plan's own words, and one that no document supports."""
    turns: list[tuple[str, str, dict[str, Any]]] = [
        (f"How many berths has the {name} Pier?", f"The {name} Pier has {n + 20} berths. Shall I book?", {})
        for n, name in enumerate(NAMES)
    ]
    turns.append(("Who owns the moon?", "Our notes do not say. Shall I ask?", {"refusal": True}))
    turns.append(("When does the zoo open?", "The zoo opens at 9 on weekdays. Shall I ask?", {}))
    return tuple(
        Example(({"role": "user", "content": q}, {"role": "assistant", "content": a}), meta, line)
        for line, (q, a, meta) in enumerate(turns, 1)
    )


@pytest.fixture(scope="session")
def adapter(tiny: Model, examples: tuple[Example, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the tiny model says."""
    from runners.plan.train_config import TrainConfig
    from runners.train import fit

    out = tmp_path_factory.mktemp("adapter") / "out"
    fit(examples, TrainConfig(epochs=4.0, rank=4, alpha=8.0, learning_rate=2e-2, batch_tokens=400), tiny, out)
    return out
