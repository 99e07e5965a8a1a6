"""Generation on this machine: batched by length, shared prefixes computed once, tuned weights switched in memory.

:func:`local_generator` is the entry point. The generator decodes with this project's own loops and KV cache where
:func:`runners.inference.decoding_path.choose_path` accepts the model for them, and with transformers' `generate` for
all others and where `kernels` is plain; that is the reference that the tests compare the loops with. Imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from collections.abc import Generator as Running
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.data.formats import Message
from runners.data.reasoning import TAGS, ReasoningSplitter, opened_reasoning
from runners.inference.constraints.answer_forms import AnswerForms
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.decoding import Decoder, TokenSampler
from runners.inference.decoding_path import DecodingPath, choose_path, path_file, read_path
from runners.inference.generation_rules import read_rules
from runners.inference.kv_cache import (
    CachedPrefix,
    PrefixCache,
    PromptPrefixes,
    StaticKVCache,
)
from runners.inference.llama_step import StepModel, load_step_model
from runners.inference.prefix_groups import PromptBatch, prompt_batches
from runners.inference.streaming import TextStream
from runners.inference.transformers_decoder import TransformersDecoder
from runners.inference.types import GREEDY, Completion, CompletionStream, Sampling, check_max_new_tokens
from runners.inference.weights import SwitchableModel, dtype_for, merge_plain_lora
from runners.models.resolve import Model
from runners.plan.steps import NO_QUANTIZATION, Thinking
from runners.tokenization.chat_template import (
    ChatTokenizer,
    control_token_breaker,
    neutralise_chat,
)

BATCH_ROWS = 32
"""Most rows of one batch."""
BATCH_TOKENS = 12_000
"""Tokens of one batch, padding and the longest answers included: at most 0.3 GiB of keys and values on a 135M model."""
NO_THINKING = Thinking()
PROMPT_END_TOKENS = 16
"""Tokens at the end of a prompt that are looked at for the tag that opens reasoning."""
TOKENIZER_FILE = "tokenizer.json"
OnBatch = Callable[[list[int], list[Completion]], None] | None
"""Called with the indexes and answers of each batch as it ends."""
IsCancelled = Callable[[], bool]
"""Called at every token; returns whether the answer is no longer needed."""


def local_generator(
    model: Model,
    weights: Path | None = None,
    dtype: str = "auto",
    kernels: str = "auto",
    quantization: str = NO_QUANTIZATION,
    thinking: Thinking = NO_THINKING,
) -> LocalGenerator:
    """Load a base model and return its generator.

    Args:
        model: The base model.
        weights: An adapter or a tuned model folder made on exactly this base; None for the base itself.
        dtype: float32, bfloat16, or auto for what the device is fastest in.
        kernels: auto for this project's own decoding where it is proven for the model, plain for transformers' `generate`.
        quantization: nf4 holds the linear layers in 4 bits, with an adapter beside them; none in the dtype.
        thinking: Whether a model that can reason before it answers does so, and in how many tokens.
    """
    return LocalGenerator(model, weights, dtype, kernels, quantization, thinking)


class LocalGenerator:
    """A base model, or one with tuned weights, on this machine; greedy unless asked otherwise."""

    def __init__(
        self,
        model: Model,
        weights: Path | None = None,
        dtype: str = "auto",
        kernels: str = "auto",
        quantization: str = NO_QUANTIZATION,
        thinking: Thinking = NO_THINKING,
    ) -> None:
        """Load the model; see :func:`local_generator`."""
        self.kernels = kernels
        self.thinking = thinking
        self._base_folder = model.folder
        held, four_bit = f"{dtype_for(dtype)[0]} {quantization}", quantization != NO_QUANTIZATION
        self._path_file = partial(path_file, weights=model.fingerprint, dtype=held, kernels=kernels)
        self._known = read_path(self._path_file(model.folder))
        step_only = bool(self._known and self._known.step_only)
        self._weights = SwitchableModel(model, weights, dtype, four_bit=four_bit, step_only=step_only)
        self.tokenizer: Any = self._weights.tokenizer
        self.prefixes: PrefixCache[CachedPrefix] = PrefixCache()
        added = self.tokenizer.added_tokens_decoder.values()
        self._broken = control_token_breaker(token.content for token in added if token.special)
        special = {
            token.content: i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        tags = "".join(tags.opening + tags.closing for tags in TAGS)
        # The tags of some families are special tokens, which decoding would leave out with the others.
        self._tag_ids = frozenset(i for text, i in special.items() if text in tags)
        self._hidden_ids = frozenset(special.values()) - self._tag_ids
        self._paths: dict[tuple[Any, ...], DecodingPath] = {}
        self.forms = AnswerForms(self)
        """Holds answers to constraints."""
        self._prepare()

    @property
    def model(self) -> Any:
        """The model with the current weights as transformers loads it, with a forward pass of its own."""
        if self._weights.load_whole():
            self._prepare()
        return self._weights.model

    @property
    def vocabulary(self) -> int:
        """Tokens that the model gives logits for."""
        head = self._weights.model.get_output_embeddings()
        return int(self._config.vocab_size if head is None else head.weight.shape[0])

    def decoding(self) -> dict[str, Any]:
        """Return as JSON values how answers are decoded and why, and what of the model's generation_config they follow."""
        return {
            "path": self.path.name,
            "reason": self.path.reasons(),
            "step": "fused"
            if self.decoder is not None and self.decoder.fused_step is not None
            else "transformers",
            "prefill": "fused"
            if self.decoder is not None and self.decoder.fused_prefill is not None
            else "transformers",
            "applied": dict(self.rules.applied),
            "ignored": list(self.rules.ignored),
        }

    def use(self, weights: Path | None) -> None:
        """Switch to other tuned weights, or to none; the base is not loaded again where memory holds a copy of it.

        Raises BadInput for weights that were made on another base, and then the current ones stay in use.
        """
        if weights == self._weights.weights and self._weights.model is not None:
            return  # a server asks before every request, and reading a tokenizer of 262,144 tokens takes a second
        # Both hold the model, whose memory may be needed.
        self.decoder: Decoder | None = None
        self.reference.model = None
        try:
            self._weights.use(weights)
        finally:
            if self._weights.model is not None:
                self._prepare()

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: OnBatch = None,
        sampling: Sampling = GREEDY,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer every chat but those whose index is `known`; rows of one beginning or length share a batch.

        Known answers change neither the batches nor their shared prefixes: with other rows in its batch, or a longer
        prefix, an answer could differ by rounding. Raises BadInput, before anything is answered, for a chat whose answer
        does not fit the model's context, and for a constraint that cannot be met within `max_new_tokens`.
        """
        max_new_tokens = self.forms.answer_tokens(constraint, max_new_tokens)
        prompts = self._prompts(chats, max_new_tokens)
        sampler = self.forms.hold(
            TokenSampler(sampling, range(len(prompts))),
            {n: (prompt, constraint, max_new_tokens) for n, prompt in enumerate(prompts)},
        )
        common = self.shared_prefix(prompts)
        done: dict[int, Completion] = {}
        lengths = [len(p) + self.most_tokens(p, max_new_tokens) for p in prompts]
        for planned in self._batches(prompts, lengths, common[0] if common else 0):
            batch = list(planned.rows)
            unknown = [i for i in batch if i not in known]
            if not unknown:
                continue
            if len(prompts) == 1 and self.decoder is not None:
                running = self.follow(prompts[0], max_new_tokens, sampling, constraint=constraint)
                answers = [CompletionStream(running).finish()]
            else:
                prefix = prompts[batch[0]][: planned.prefix]
                shared = self.shared.beginning(prefix, common) if self.shared else None
                answers = self._batch(batch, prompts, max_new_tokens, sampler, shared)
            completions = dict(zip(batch, answers, strict=True))
            done.update((i, completions[i]) for i in unknown)
            if on_batch:
                on_batch(unknown, [completions[i] for i in unknown])
        return [done[i] for i in range(len(chats)) if i in done]

    def stream(
        self,
        chat: Sequence[Message],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        *,
        constraint: OutputConstraint | None = None,
    ) -> CompletionStream:
        """Answer one chat piece by piece; a prefix shared with earlier prompts and answers is not computed again."""
        max_new_tokens = self.forms.answer_tokens(constraint, max_new_tokens)
        (prompt,) = self._prompts([chat], max_new_tokens)
        return CompletionStream(self.follow(prompt, max_new_tokens, sampling, constraint=constraint))

    def prompt(self, chat_or_text: Sequence[Message] | str, limit: int) -> list[int]:
        """Return a chat, or a text to continue, as tokens; BadInput when `limit` more do not fit the context.

        A text is encoded unchanged: control tokens in it count as such.
        """
        check_max_new_tokens(limit)
        if not isinstance(chat_or_text, str):
            return self._prompts([chat_or_text], limit)[0]
        ids = self.chat.encode(chat_or_text)
        begin = self.chat.begins
        # The token before every text once, and no end token after it, which some tokenizers add.
        if begin is not None and ids[:1] != [begin]:
            ids = [begin, *ids]
        return self._fitting([ids], limit)[0]

    @property
    def shared(self) -> PromptPrefixes | None:
        """What prompts share, computed by the own decoder with the current weights; None where transformers decodes."""
        return (
            None
            if self.decoder is None
            else PromptPrefixes(self.decoder.cache_prefix, self.prefixes, self._weights.owner)
        )

    @property
    def room(self) -> int:
        """Tokens that a chat's answer may have for its reasoning, beside those of the answer itself."""
        reasons = self.chat.features.reasons == "always" or self.thinking.enabled
        return self.thinking.max_tokens if reasons else 0

    def pieces(self, prompt: Sequence[int], stop: Sequence[str] = (), trim: bool = True) -> TextStream:
        """Return a new stream that converts this model's tokens to text; see :class:`TextStream`.

        With ``trim`` it is an answer, whose reasoning is cut, also where the end of the prompt has begun it.
        """
        stops = (*stop, *self.rules.stop_texts)
        if not trim:
            return TextStream(self.decode, stops, trim)
        end = self.decode(list(prompt[-PROMPT_END_TOKENS:]))
        return TextStream(self.decode, stops, trim, ReasoningSplitter(opened_reasoning(end)))

    def most_tokens(self, prompt: Sequence[int], limit: int, trim: bool = True) -> int:
        """Return the most tokens of an answer and its reasoning; the room for that ends where the model's context does."""
        context = getattr(self._config, "max_position_embeddings", None)
        most = limit + (self.room if trim else 0)
        return max(limit, min(most, context - len(prompt))) if context else most

    def _prepare(self) -> None:
        """Read what the current weights' generation_config asks, and choose and make their decoder."""
        model = self._weights.model
        self._config = model.config.get_text_config()
        tuned = self._weights.weights
        # The folder of tuned weights holds the template that they were trained with.
        folder = self._base_folder if tuned is None or not (tuned / TOKENIZER_FILE).is_file() else tuned
        self.chat = ChatTokenizer(folder, self.thinking.enabled)
        ends = getattr(model.generation_config, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [ends]
        # With the token that the template writes after an answer: tuned weights end with it, also where the model's own
        # settings name another (base models with a chat template, such as Qwen2.5's).
        known = (*listed, self.tokenizer.eos_token_id, self.chat.turn_end)
        self.ends = frozenset(end for end in known if end is not None)
        self.rules = read_rules(model.generation_config, sorted(self.ends))
        # Weights do not change what an architecture computes, so a switch of weights needs no new probe.
        architecture = (type(model), str(model.dtype), str(model.config.to_dict()))
        if architecture not in self._paths:
            earlier = self._known if isinstance(model, StepModel) else None
            self._paths[architecture] = earlier or self._chosen_path()
        self.path = self._paths[architecture]
        self.decoder = self.path.decoder(model)
        self.reference = TransformersDecoder(
            model, sorted(self.ends), self.tokenizer.pad_token_id, self.path.padded
        )

    def _chosen_path(self) -> DecodingPath:
        """Return how the current model is decoded, by what is kept of earlier starts or by the probes."""
        model, tuned = self._weights.model, self._weights.weights
        file = self._path_file(self._base_folder)
        if tuned and (tuned / "config.json").is_file():  # another model than the base
            file = self._path_file(tuned, weights=" ".join(self._weights.owner[:2]))

        def step_model() -> StepModel | None:
            other = load_step_model(self._base_folder, model.dtype)
            return other if other and (tuned is None or merge_plain_lora(other, tuned)) else None

        return choose_path(model, self.kernels, self._ordinary_tokens, file, step_model)

    def _ordinary_tokens(self) -> list[int]:
        """Return the tokens of the vocabulary that are text: none that is special or was added."""
        added = set(self.tokenizer.added_tokens_decoder) | set(self.tokenizer.all_special_ids)
        size = self._weights.model.get_input_embeddings().num_embeddings
        tokens = sorted(set(self.tokenizer.get_vocab().values()) - added)
        return [token for token in tokens if token < size] or [0]

    def _prompts(self, chats: Sequence[Sequence[Message]], limit: int) -> list[list[int]]:
        """Return the chats as tokens; BadInput for one with which `limit` more do not fit the context."""
        check_max_new_tokens(limit)
        return self._fitting([self._tokens(chat) for chat in chats], limit)

    def _fitting(self, prompts: list[list[int]], limit: int) -> list[list[int]]:
        """Return the prompts; BadInput for an empty one, and for one with which `limit` more do not fit the context."""
        context = getattr(self._config, "max_position_embeddings", None)
        for number, prompt in enumerate(prompts, 1):
            which = f"prompt {number} of {len(prompts)}" if len(prompts) > 1 else "the prompt"
            if not prompt:
                raise BadInput(f"{which} is empty", "ask something")
            if context and len(prompt) + limit > context:
                raise BadInput(
                    f"{which} has {len(prompt):,} tokens: with {limit:,} for the answer that is more than the "
                    f"{context:,} that the model reads",
                    "shorten it, show fewer passages or examples, or ask for a shorter answer",
                )
        return prompts

    def _tokens(self, chat: Sequence[Message]) -> list[int]:
        """Return a chat as tokens by the model's template; control tokens in the messages become plain text."""
        return self.chat.encode(self.chat.render(neutralise_chat(chat, self._broken), prompt=True))

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens without special tokens, but with the tags of reasoning."""
        if self._tag_ids:
            tokens = [token for token in tokens if token not in self._hidden_ids]
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=not self._tag_ids)
        return text

    def shared_prefix(self, prompts: list[list[int]]) -> tuple[int, CachedPrefix] | None:
        """Return the length and the cached keys and values of the prompts' common prefix; None where it is too short."""
        return self.shared.common(prompts) if self.shared else None

    def _batches(self, prompts: list[list[int]], lengths: list[int], common: int) -> list[PromptBatch]:
        """Return the batches of a call; prompts that share their beginning are together where that saves computing it."""
        if self.decoder is not None and self.decoder.fused_prefill is not None:
            return prompt_batches(prompts, lengths, BATCH_ROWS, BATCH_TOKENS, common)
        return [PromptBatch(tuple(batch), common) for batch in length_batches(lengths)]

    def _batch(
        self,
        batch: list[int],
        prompts: list[list[int]],
        limit: int,
        sampler: TokenSampler,
        shared: tuple[int, CachedPrefix] | None,
    ) -> list[Completion]:
        """Answer the prompts at the indexes in `batch` together."""
        started = time.perf_counter()
        tokens: list[list[int]] = [[] for _ in batch]
        ended = [False] * len(batch)
        sampling, room = sampler.sampling, self.room
        rows = [prompts[i] for i in batch]
        texts = [self.pieces(prompt, sampling.stop) for prompt in rows]
        # Text is needed at every token only for a stop text, or to see where the reasoning ends.
        followed = bool(sampling.stop or self.rules.stop_texts or room)
        most = [self.most_tokens(prompt, limit) for prompt in rows]

        def on_token(row: int, token: int) -> bool:
            ended[row] = token in self.ends
            if not ended[row]:
                tokens[row].append(token)
                if followed:
                    texts[row].add(token)
                    ended[row] = texts[row].stopped
                # The room for reasoning ends where the model's context does, which is earlier for a longer prompt.
                ended[row] = ended[row] or sampler.is_complete(batch[row], len(tokens[row]))
            full = len(tokens[row]) >= most[row] or (followed and texts[row].is_full(limit, room))
            return ended[row] or full or sampler.is_looping(batch[row], tokens[row])

        self.decode_batch(rows, max(most), on_token, sampler, batch, shared)
        seconds = (time.perf_counter() - started) / len(batch)
        if not followed:
            for text, answer in zip(texts, tokens, strict=True):
                text.add_all(answer)
        return [
            self._completion(prompt, text, seconds, end and not sampler.was_closed(name))
            for prompt, text, end, name in zip(rows, texts, ended, batch, strict=True)
        ]

    def decode_batch(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        on_token: Callable[[int, int], bool],
        sampler: TokenSampler,
        names: Sequence[int],
        shared: tuple[int, CachedPrefix] | None = None,
    ) -> None:
        """Decode prompts together by the path of this model; the arguments are those of :meth:`Decoder.decode_batch`."""
        rules = self.rules.for_prompts(prompts, limit, self._weights.model.device)
        if self.decoder is not None:
            self.decoder.decode_batch(prompts, limit, on_token, sampler, names, shared, rules)
        else:
            self.reference.decode_batch(prompts, limit, on_token, sampler, names, rules)

    def _completion(self, prompt: list[int], pieces: TextStream, seconds: float, ended: bool) -> Completion:
        """Return the completion of generated tokens, the end token not among them."""
        pieces.rest()
        return Completion(
            pieces.text,
            len(prompt),
            len(pieces.tokens),
            seconds,
            "stop" if ended else "length",
            reasoning_tokens=pieces.reasoning_tokens,
            reasoning_cut=pieces.inside_reasoning,
        )

    def follow(
        self,
        prompt: list[int],
        limit: int,
        sampling: Sampling = GREEDY,
        is_cancelled: IsCancelled | None = None,
        trim: bool = True,
        constraint: OutputConstraint | None = None,
    ) -> Running[str, None, Completion]:
        """Yield the pieces of an answer to a prompt of tokens; return the whole answer, or what there was until cancelled.

        `trim` removes white space at both ends, as for an answer; a text that is continued keeps it. `limit` has to hold
        an answer of the constraint: see :meth:`runners.inference.constraints.answer_forms.AnswerForms.answer_tokens`.
        """
        started, owner = time.perf_counter(), self._weights.owner
        pieces = self.pieces(prompt, sampling.stop, trim)
        room = self.room if trim else 0
        most = self.most_tokens(prompt, limit, trim)
        cache = None
        if self.decoder is not None:
            cache = StaticKVCache(self.decoder.layers, 1, len(prompt) + most)
            if match := self.prefixes.longest_match(owner, prompt):
                cache.load_prefix(match[1], match[0])
        ended = False
        sampler = self.forms.hold(TokenSampler(sampling), {0: (prompt, constraint, limit)}, trim)
        with closing(self._tokens_of(prompt, most, sampler, cache)) as tokens:
            for token in tokens:
                ended = token in self.ends
                piece = "" if ended else pieces.add(token)
                if piece:
                    yield piece
                ended = ended or pieces.stopped or sampler.is_complete(0, len(pieces.tokens))
                if (
                    ended
                    or (is_cancelled and is_cancelled())
                    or (trim and sampler.is_looping(0, pieces.tokens))
                ):
                    break
                if room and pieces.is_full(limit, room):
                    break
        if piece := pieces.rest():
            yield piece
        if cache is not None:
            # The newest token is not in the cache yet, and a guess that was verified may be there without being shown.
            cached = [*prompt, *pieces.tokens][: cache.length]
            self.prefixes.put(owner, cached, cache.copy_prefix(len(cached)))
        ended = ended and not sampler.was_closed(0)
        return self._completion(prompt, pieces, time.perf_counter() - started, ended)

    def _tokens_of(
        self, prompt: list[int], limit: int, sampler: TokenSampler, cache: StaticKVCache | None
    ) -> Running[int, None, None]:
        """Yield the tokens of one answer by the path of this model; the own decoder computes into `cache`."""
        rules = self.rules.for_prompts([prompt], limit, self._weights.model.device)
        if self.decoder is not None and cache is not None:
            yield from self.decoder.decode_one(prompt, limit, sampler, cache, rules=rules)
        else:
            yield from self.reference.decode_one(prompt, limit, sampler, rules)


def length_batches(
    lengths: Sequence[int], rows: int = BATCH_ROWS, tokens: int = BATCH_TOKENS
) -> list[list[int]]:
    """Group the indexes of rows by similar length, at most `rows` rows and `tokens` padded tokens a batch; longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    grouped: list[list[int]] = []
    for position in order:
        current = grouped[-1] if grouped else []
        # The first of a batch is its longest, to which the others are padded.
        fits = current and len(current) < rows and (len(current) + 1) * lengths[current[0]] <= tokens
        if fits:
            current.append(position)
        else:
            grouped.append([position])
    return grouped
