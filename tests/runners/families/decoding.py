"""The contract of decoding for one family: what is compared with plain transformers, and what came out.

:func:`decode_contract` is used by the tests beside it and by the script that writes the table in docs/models.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from runners.inference.batched import BatchRow, generate_batch
from runners.inference.decoding import TokenSampler
from runners.inference.local import LocalGenerator
from runners.inference.types import CompletionStream
from runners.models import resolve
from tests.families import VOCABULARY, build

END = 2
"""The token that ends an answer."""
LENGTHS = (21, 37, 5)
"""Tokens of the prompts: unequal, two of them longer than every family's window (8), the first two share a prefix."""
DEEP_LENGTHS = (5, 23, 41, 12, 70, 8, 9, 1)
SHARED = 18
"""First tokens that the prompts longer than this share: more than are worth caching."""
LIMIT = 9
"""Most tokens of an answer: more than a window."""
MAX_DIFFERENCE = 1e-3
"""Largest difference of a logit from transformers' own, in standard deviations: rounding in fp32 stays below."""
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat is its messages and nothing else, so that a prompt of tokens can be written as a chat."""


@dataclass(frozen=True)
class DecodingRecord:
    """What decoding a family's tiny model gave."""

    family: str
    path: str
    """fast or plain."""
    reason: str
    """Why the path is plain, and why rows are not padded; "" for the fast path with padded batches."""
    fused: bool
    """Whether single steps are fused."""
    single: bool
    """Whether single answers are those of transformers' ``generate(do_sample=False)``, token for token."""
    batched: bool
    """Whether answers of one batch are the single ones."""
    streamed: bool
    """Whether streamed answers are the single ones, and come token by token."""
    evaluated: bool
    """Whether the answers that an arm is scored on are the single ones."""
    continued: bool
    """Whether the answer to a prompt that goes on from an earlier answer, part of which may be cached, is right."""
    batch_of_transformers: bool
    """Whether transformers itself gives the single answers for the padded batch; where not, rows are not padded here."""
    logits: bool
    """Whether the logits of every answer token, alone and in a batch, are those of the prompt alone in transformers."""
    plain: bool | None = None
    """Whether the plain path gives the same; None where it is not asked for separately."""

    @property
    def right(self) -> bool:
        """Whether every answer is right."""
        return (
            self.single
            and self.batched
            and self.streamed
            and self.evaluated
            and self.continued
            and self.logits
            and self.plain is not False
        )


def word(token: int) -> str:
    """Return the text of a token."""
    return f"w{token}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one word for each token, so that a text is its tokens."""
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}
    vocabulary = {**special, **{word(token): token for token in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def save_family(name: str, folder: Path, seed: int = 0, **generation: Any) -> Any:
    """Build a family's model, write it with a tokenizer to a folder, and return it; settings go to generation_config."""
    model = build(name, seed)
    for setting, value in generation.items():
        setattr(model.generation_config, setting, value)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


def open_generator(folder: Path, kernels: str = "auto") -> LocalGenerator:
    """Load a folder in fp32; the tokenizer stays that of the tests, whatever transformers has for the architecture."""
    generator = LocalGenerator(resolve.resolve_model(str(folder)), None, "float32", kernels)
    generator.tokenizer = make_tokenizer()
    return generator


def make_prompts(lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    """Draw prompts of these lengths."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=draw).tolist()
    return [[*rows[0][:SHARED], *row[SHARED:]][:length] for row, length in zip(rows, lengths, strict=True)]


def transformers_tokens(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    """Return transformers' greedy tokens for prompts in one batch, padded on the left, without what follows the end."""
    width = max(map(len, prompts))
    pads = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    with torch.inference_mode():
        rows = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=0
        )
    return [until_end(row[width:].tolist(), ends_of(model)) for row in rows]


def transformers_logits(model: Any, prompt: Sequence[int], limit: int) -> torch.Tensor:
    """Return transformers' logits [tokens, vocabulary] of a greedy answer to one prompt, its end token included."""
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor([list(prompt)]),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return torch.cat(output.logits)


class RecordingSampler(TokenSampler):
    """Greedy decoding that records the logits of each row."""

    def __init__(self, rows: int) -> None:
        """Prepare the records."""
        super().__init__()
        self.logits: list[list[torch.Tensor]] = [[] for _ in range(rows)]

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Record and return the likeliest tokens."""
        for one, row in zip(logits, rows, strict=True):
            self.logits[row].append(one.clone())
        return super().sample(logits, rows)


def recorded_logits(
    generator: LocalGenerator, prompts: Sequence[list[int]], limit: int
) -> list[torch.Tensor]:
    """Return the logits [tokens, vocabulary] of each row that this project decodes in one batch."""
    sampler = RecordingSampler(len(prompts))
    shared = generator.shared_prefix(list(prompts))
    generator.decode_batch(
        prompts, limit, lambda row, token: token in generator.ends, sampler, range(len(prompts)), shared
    )
    return [torch.stack(row) for row in sampler.logits]


def equal_logits(computed: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    """Return whether logits differ by less than MAX_DIFFERENCE of their standard deviation."""
    return all(
        row.shape == goal.shape and float((row - goal).abs().max() / goal.std()) < MAX_DIFFERENCE
        for row, goal in zip(computed, expected, strict=True)
    )


def ends_of(model: Any) -> tuple[int, ...]:
    """Return the end tokens of a model's generation_config."""
    ends = model.generation_config.eos_token_id
    return tuple(ends) if isinstance(ends, list) else (ends,)


def until_end(tokens: Sequence[int], ends: Sequence[int] = (END,)) -> list[int]:
    """Return tokens before the first end token."""
    end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:end])


def words(tokens: Sequence[int]) -> str:
    """Return the text of tokens as an answer has it: without special ones."""
    return " ".join(word(token) for token in tokens if token > END)


def stream_pieces(generator: LocalGenerator, prompt: list[int], limit: int) -> tuple[list[str], str]:
    """Return the pieces of a streamed answer, and the answer."""
    stream = CompletionStream(generator.follow(prompt, limit))
    pieces = list(stream)
    return pieces, stream.completion.text


def answers_in_one_batch(
    generator: LocalGenerator, prompts: Sequence[list[int]], limit: int
) -> tuple[list[str], list[list[str]]]:
    """Return the answers of the batch that a server makes of requests, and the pieces that each request was sent."""
    pieces: list[list[str]] = [[] for _ in prompts]
    rows = [
        BatchRow(prompt=prompt, limit=limit, on_text=sent.append)
        for prompt, sent in zip(prompts, pieces, strict=True)
    ]
    return [completion.text for completion in generate_batch(generator, rows)], pieces


def decode_contract(
    name: str, lengths: Sequence[int] = LENGTHS, limit: int = LIMIT, deep: bool = False, seed: int = 0
) -> DecodingRecord:
    """Compare every way in which a family is decoded with transformers; ``deep`` compares the plain path as well."""
    prompts = make_prompts(lengths)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        model = save_family(name, folder, seed)
        expected = [words(transformers_tokens(model, [prompt], limit)[0]) for prompt in prompts]
        in_batch = [words(tokens) for tokens in transformers_tokens(model, prompts, limit)]
        longer = prompts[0] + [int(text[1:]) for text in expected[0].split()] + prompts[1][-3:]
        expected_longer = words(transformers_tokens(model, [longer], limit)[0])
        generator = open_generator(folder)
        streams = [stream_pieces(generator, prompt, limit) for prompt in prompts]
        together, sent = answers_in_one_batch(generator, prompts, limit)
        chats = [[{"role": "user", "content": " ".join(map(word, prompt))}] for prompt in prompts]
        plain = None
        if deep:
            plain_generator = open_generator(folder, "plain")
            plain = [answer.text for answer in plain_generator.generate(chats, limit)] == expected
            plain = plain and [stream_pieces(plain_generator, p, limit)[1] for p in prompts] == expected
        decoder = generator.decoder
        return DecodingRecord(
            name,
            generator.path.name,
            generator.path.reasons(),
            decoder is not None and decoder.fused_step is not None,
            single=[text for _, text in streams] == expected,
            batched=together == expected and ["".join(pieces) for pieces in sent] == expected,
            streamed=all(
                "".join(pieces) == text and len(pieces) == len(text.split()) for pieces, text in streams
            )
            and all(len(pieces) == len(text.split()) for pieces, text in zip(sent, together, strict=True)),
            evaluated=[answer.text for answer in generator.generate(chats, limit)] == expected,
            logits=equal_logits(
                [
                    *recorded_logits(generator, prompts, limit),
                    *recorded_logits(generator, prompts[:1], limit),
                ],
                [transformers_logits(model, prompt, limit) for prompt in (*prompts, prompts[0])],
            ),
            continued=stream_pieces(generator, longer, limit)[1] == expected_longer,
            batch_of_transformers=in_batch == expected,
            plain=plain,
        )
