"""Local generation: batched by length, shared prefixes read once, tuned weights on and off. Heavy: imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from collections.abc import Generator as Running
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402

from rag.errors import BadInput  # noqa: E402
from runners.completion import GREEDY, Completion, Sampling, Stream, check_limit  # noqa: E402
from runners.decode import Decoder  # noqa: E402
from runners.guard import breaker, guarded  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.pieces import Pieces  # noqa: E402
from runners.prefix import LEAST, Prefixes, common  # noqa: E402
from runners.sampling import Picker  # noqa: E402
from runners.shapes import Message  # noqa: E402
from runners.slab import Kept, Slab, plain_layers  # noqa: E402
from runners.switching import Weights  # noqa: E402

BATCH_ROWS = 32
BATCH_TOKENS = 12_000
"""Tokens of one batch, padding and room for answers included: at most 0.3 GiB of keys and values on a 135M model."""
OnBatch = Callable[[list[int], list[Completion]], None] | None
Wanted = Callable[[], bool]
"""Asked at every token: whether somebody still waits for the answer."""


class LocalGenerator:
    """A base model, or one with tuned weights, on this machine; greedy unless asked otherwise."""

    def __init__(self, model: Model, weights: Path | None = None, dtype: str = "auto") -> None:
        """Load the model; `weights` is an adapter or a tuned model folder made on exactly this base."""
        self._weights = Weights(model, weights, dtype)
        self.tokenizer: Any = self._weights.tokenizer
        self.prefixes: Prefixes[Kept] = Prefixes()
        added = self.tokenizer.added_tokens_decoder.values()
        self._broken = breaker(token.content for token in added if token.special)
        self._prepare()

    @property
    def model(self) -> Any:
        """The model as it decodes now."""
        return self._weights.model

    def use(self, weights: Path | None) -> None:
        """Put other tuned weights on the base, or none; the base is not loaded again where a copy of it finds room.

        BadInput for weights that were made on another base: then what was in use still is.
        """
        self.decoder: Decoder | None = None  # it holds the model, whose memory may be needed
        try:
            self._weights.use(weights)
        finally:
            if self.model is not None:
                self._prepare()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: OnBatch = None,
        sampling: Sampling = GREEDY,
        *,
        known: Container[int] = (),
    ) -> list[Completion]:
        """Answer every chat but those that are `known`; rows of like length share a batch, the same batches every time.

        What is known changes no batch that is still to be made, and no prefix: with other rows beside it, or a longer
        one, an answer could differ by a rounding. BadInput, before anything is answered, for a chat that leaves no room
        for its answer in the model's context.
        """
        prompts = self._prompts(chats, max_new_tokens)
        picker = Picker(sampling, range(len(prompts)))
        shared = self.shared(prompts)
        done: dict[int, Completion] = {}
        for batch in batches([len(p) + max_new_tokens for p in prompts]):
            told = [i for i in batch if i not in known]
            if not told:
                continue
            if self.decoder is None:
                answers = self._by_transformers([prompts[i] for i in batch], max_new_tokens, sampling)
            elif len(prompts) == 1:
                answers = [Stream(self.follow(prompts[0], max_new_tokens, sampling)).finish()]
            else:
                answers = self._batch(batch, prompts, max_new_tokens, picker, shared)
            made = dict(zip(batch, answers, strict=True))
            done.update((i, made[i]) for i in told)
            if on_batch:
                on_batch(told, [made[i] for i in told])
        return [done[i] for i in range(len(chats)) if i in done]

    def stream(self, chat: Sequence[Message], max_new_tokens: int, sampling: Sampling = GREEDY) -> Stream:
        """Answer one chat piece by piece; what earlier prompts and answers share with it is not read again."""
        (prompt,) = self._prompts([chat], max_new_tokens)
        return Stream(self.follow(prompt, max_new_tokens, sampling))

    def prompt(self, asked: Sequence[Message] | str, limit: int) -> list[int]:
        """A chat, or a text to be gone on with, as tokens; BadInput when no room is left for `limit` more.

        A text is taken as it is: control tokens in it count as such.
        """
        check_limit(limit)
        if not isinstance(asked, str):
            return self._prompts([asked], limit)[0]
        ids: list[int] = self.tokenizer.encode(asked)
        return self._fitting([ids], limit)[0]

    def pieces(self, stop: Sequence[str] = (), trim: bool = True) -> Pieces:
        """What turns this model's tokens into text as they come."""
        return Pieces(self._decode, stop, trim)

    def _prepare(self) -> None:
        model = self._weights.model
        ends = getattr(model.generation_config, "eos_token_id", None) or []
        listed = ends if isinstance(ends, list) else [ends]
        self.ends = frozenset([*listed, self.tokenizer.eos_token_id])
        self.decoder = Decoder(model) if plain_layers(model.config) else None

    def _prompts(self, chats: Sequence[Sequence[Message]], limit: int) -> list[list[int]]:
        """The chats as tokens, each with room for `limit` more in the model's context."""
        check_limit(limit)
        return self._fitting([self._tokens(chat) for chat in chats], limit)

    def _fitting(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        room = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for number, prompt in enumerate(prompts, 1):
            which = f"prompt {number} of {len(prompts)}" if len(prompts) > 1 else "the prompt"
            if not prompt:
                raise BadInput(f"{which} is empty", "ask something")
            if room and len(prompt) + limit > room:
                raise BadInput(
                    f"{which} has {len(prompt):,} tokens: with {limit:,} for the answer that is more than the "
                    f"{room:,} that the model reads",
                    "shorten it, show fewer passages or examples, or ask for a shorter answer",
                )
        return prompts

    def _tokens(self, chat: Sequence[Message]) -> list[int]:
        plain = guarded(chat, self._broken)
        text = self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def shared(self, prompts: list[list[int]]) -> tuple[int, Kept] | None:
        """What all prompts of a call begin with, read once; None where it is too short to pay."""
        length = common(prompts)
        if self.decoder is None or len(prompts) < 2 or length < LEAST:
            return None
        owner, ids = self._weights.owner, prompts[0][:length]
        kept = self.prefixes.exactly(owner, ids)
        if kept is None:
            kept = self.decoder.keep(ids)
            self.prefixes.keep(owner, ids, kept)
        return length, kept

    def _batch(
        self, batch: list[int], prompts: list[list[int]], limit: int, picker: Picker,
        shared: tuple[int, Kept] | None,
    ) -> list[Completion]:  # fmt: skip
        assert self.decoder is not None
        started = time.perf_counter()
        made: list[list[int]] = [[] for _ in batch]
        ended = [False] * len(batch)

        def took(row: int, token: int) -> bool:
            ended[row] = token in self.ends
            if not ended[row]:
                made[row].append(token)
                ended[row] = bool(picker.how.stop) and self._text(made[row], picker.how.stop)[1]
            return ended[row]

        rows = [prompts[i] for i in batch]
        self.decoder.batch(rows, limit, took, picker, batch, shared)
        seconds = (time.perf_counter() - started) / len(batch)
        return [
            self._completion(p, m, seconds, e, picker.how) for p, m, e in zip(rows, made, ended, strict=True)
        ]

    def _completion(
        self, prompt: list[int], made: list[int], seconds: float, ended: bool, sampling: Sampling
    ) -> Completion:
        text, _ = self._text(made, sampling.stop)
        return Completion(text, len(prompt), len(made), seconds, "stop" if ended else "length")

    def _text(self, made: list[int], stop: Sequence[str]) -> tuple[str, bool]:
        """The text of tokens up to the first stop text, and whether there was one."""
        text = self._decode(made)
        found = [at for at in (text.find(s) for s in stop) if at >= 0]
        return text[: min(found, default=len(text))].strip(), bool(found)

    def follow(
        self, prompt: list[int], limit: int, sampling: Sampling = GREEDY, wanted: Wanted | None = None,
        trim: bool = True,
    ) -> Running[str, None, Completion]:  # fmt: skip
        """Yield the pieces of an answer to a prompt of tokens; return the whole, as far as it was wanted.

        `trim` takes white space off its ends, as for an answer; a text that is gone on with keeps it.
        """
        if self.decoder is None:
            (answer,) = self._by_transformers([prompt], limit, sampling, wanted)
            if answer.text:
                yield answer.text
            return answer
        started, owner = time.perf_counter(), self._weights.owner
        pieces = self.pieces(sampling.stop, trim)
        slab = Slab(self.decoder.layers, 1, len(prompt) + limit)
        if found := self.prefixes.longest(owner, prompt):
            slab.load(found[1], found[0])
        ended = False
        for token in self.decoder.one(prompt, limit, Picker(sampling), slab):
            ended = token in self.ends
            piece = "" if ended else pieces.add(token)
            if piece:
                yield piece
            if (ended := ended or pieces.stopped) or (wanted and not wanted()):
                break
        if piece := pieces.rest():
            yield piece
        known = [*prompt, *pieces.tokens][: slab.length]
        self.prefixes.keep(owner, known, slab.keep(len(known)))
        seconds = time.perf_counter() - started
        made = len(pieces.tokens)
        return Completion(pieces.text, len(prompt), made, seconds, "stop" if ended else "length")

    def _by_transformers(
        self, prompts: list[list[int]], limit: int, sampling: Sampling, wanted: Wanted | None = None
    ) -> list[Completion]:
        """Decode as transformers does, for models whose caches are not plain keys and values of all tokens."""
        started = time.perf_counter()
        pad, width = self.tokenizer.pad_token_id, max(len(p) for p in prompts)
        where = self.model.device
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=where)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=where)
        how: dict[str, Any] = {"do_sample": False}
        if not sampling.greedy:
            torch.manual_seed(sampling.seed)
            drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            how = {"do_sample": True, **drawn}
        if wanted:
            how["stopping_criteria"] = [lambda ids, scores, **_: torch.full((len(ids),), not wanted())]
        with torch.inference_mode():
            rows = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=limit, pad_token_id=pad,
                eos_token_id=sorted(self.ends), **how,
            )  # fmt: skip
        seconds = (time.perf_counter() - started) / len(prompts)
        return [
            self._cut(p, row[width:].tolist(), seconds, sampling)
            for p, row in zip(prompts, rows, strict=True)
        ]

    def _cut(self, prompt: list[int], made: list[int], seconds: float, sampling: Sampling) -> Completion:
        end = next((n for n, token in enumerate(made) if token in self.ends), len(made))
        stopped = end < len(made) or self._text(made[:end], sampling.stop)[1]
        return self._completion(prompt, made[:end], seconds, stopped, sampling)


def batches(lengths: Sequence[int], rows: int = BATCH_ROWS, tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Group positions by like length, at most `rows` rows and `tokens` padded tokens a batch; longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    found: list[list[int]] = []
    for position in order:
        current = found[-1] if found else []
        fits = current and len(current) < rows and (len(current) + 1) * lengths[current[0]] <= tokens
        if fits:
            current.append(position)
        else:
            found.append([position])
    return found
