"""What a model's generation_config asks of every answer besides sampling: penalties, and forced and forbidden tokens.

:func:`read_rules` reads the settings that can change a greedy answer. Both decoding paths apply them with transformers'
own logits processors, row by row and on each row's own tokens, so that neither padding nor the other rows of a batch
count; then a greedy answer is that of transformers' ``generate(do_sample=False)`` for the prompt alone. Settings of
sampling and of beam search are not applied: answers are greedy unless a request asks for sampling. Imports torch and
transformers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runners.models import hub

os.environ.update(hub.offline_variables())

import numpy as np
import torch
from transformers.generation import logits_process as processors

from rag.errors import BadInput


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a processor may depend on besides its setting."""

    prompt: Any
    """Tensor of int64 [1, tokens]. Not annotated as one: transformers asks for a LongTensor, and for devices as str."""
    limit: int
    """Most tokens of the answer."""
    ends: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return int(self.prompt.shape[1])


_MAKERS: Mapping[str, Callable[[Any, _Answer], Any]] = {
    "sequence_bias": lambda value, _: processors.SequenceBiasLogitsProcessor(value),
    "encoder_repetition_penalty": lambda value, a: processors.EncoderRepetitionPenaltyLogitsProcessor(
        float(value), a.prompt
    ),
    "repetition_penalty": lambda value, _: processors.RepetitionPenaltyLogitsProcessor(float(value)),
    "no_repeat_ngram_size": lambda value, _: processors.NoRepeatNGramLogitsProcessor(value),
    "encoder_no_repeat_ngram_size": lambda value, a: processors.EncoderNoRepeatNGramLogitsProcessor(
        value, a.prompt
    ),
    "bad_words_ids": lambda value, a: processors.NoBadWordsLogitsProcessor(value, a.ends or None),
    "min_length": lambda value, a: processors.MinLengthLogitsProcessor(value, a.ends, device=a.prompt.device),
    "min_new_tokens": lambda value, a: processors.MinNewTokensLengthLogitsProcessor(
        a.length, value, a.ends, device=a.prompt.device
    ),
    "forced_bos_token_id": lambda value, _: processors.ForcedBOSTokenLogitsProcessor(value),
    "forced_eos_token_id": lambda value, a: processors.ForcedEOSTokenLogitsProcessor(
        a.length + a.limit, value, device=a.prompt.device
    ),
    "remove_invalid_values": lambda _, __: processors.InfNanRemoveLogitsProcessor(),
    "exponential_decay_length_penalty": lambda value, a: processors.ExponentialDecayLengthPenalty(
        value, a.ends, a.length
    ),
    "suppress_tokens": lambda value, a: processors.SuppressTokensLogitsProcessor(
        value, device=a.prompt.device
    ),
    "begin_suppress_tokens": lambda value, a: processors.SuppressTokensAtBeginLogitsProcessor(
        value, a.length, device=a.prompt.device
    ),
}
"""Makes the logits processor of each setting, in the order in which transformers applies them."""
_NEED_ENDS = ("min_length", "min_new_tokens", "exponential_decay_length_penalty")
"""Settings that only concern end tokens, and do nothing for a model without one."""
_WITHOUT_EFFECT: Mapping[str, Any] = {
    "repetition_penalty": 1,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "temperature": 1,
    "top_p": 1,
    "typical_p": 1,
    "guidance_scale": 1,
    "use_cache": True,
}
"""Values with which a setting changes nothing; None and False change nothing anywhere."""
_ELSEWHERE = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "stop_strings")
"""Settings that name tokens or texts: read where answers begin and end."""
_RECORDS = ("transformers_version", "max_length", "max_new_tokens")
"""Entries that are no settings, or that every call sets itself."""


_SET_BY_CALLS = (
    *("transformers_version", "max_new_tokens", "do_sample", "num_beams", "use_cache"),
    *("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id"),
)


@dataclass(frozen=True, slots=True)
class GenerationRules:
    """The settings of a generation_config that answers follow, and the names of those that they do not."""

    applied: Mapping[str, Any]
    """Value by name, of the settings that can change a greedy answer."""
    ignored: tuple[str, ...]
    """Names of settings of sampling and beam search that differ from greedy decoding."""
    stop_texts: tuple[str, ...]
    """Texts that end every answer (``stop_strings``)."""
    ends: tuple[int, ...]
    """Tokens that end an answer."""

    def for_prompts(self, prompts: Sequence[Sequence[int]], limit: int, device: Any) -> RowRules | None:
        """Return the rules of answers to these prompts, of at most ``limit`` tokens; None when there are none.

        Raises BadInput for a value that transformers refuses.
        """
        return (
            RowRules([self._processors(p, limit, device) for p in prompts], prompts) if self.applied else None
        )

    def _processors(self, prompt: Sequence[int], limit: int, device: Any) -> list[Any]:
        answer = _Answer(torch.tensor([prompt], device=device), limit, list(self.ends))
        chosen = []
        for name, make in _MAKERS.items():
            if name in self.applied:
                try:
                    chosen.append(make(self.applied[name], answer))
                except (TypeError, ValueError) as error:
                    raise BadInput(
                        f"{name} of the model's generation_config is {self.applied[name]!r}: {error}",
                        "correct generation_config.json of the model",
                    ) from error
        return chosen


class RowRules:
    """The logits processors of each row of a batch, and the tokens of each row so far."""

    def __init__(self, each: Sequence[Sequence[Any]], prompts: Sequence[Sequence[int]]) -> None:
        """Take each row's processors and its prompt."""
        self._each = each
        self._texts = [list(prompt) for prompt in prompts]

    def apply(self, logits: torch.Tensor, rows: Sequence[int], after: Sequence[int] = ()) -> torch.Tensor:
        """Return logits [rows, vocabulary] in fp32 as the rules change them; ``after`` are tokens after each row's text."""
        scores = logits.float()
        changed = []
        for index, row in enumerate(rows):
            text = torch.tensor([[*self._texts[row], *after]], device=logits.device)
            one = scores[index : index + 1].clone()
            for processor in self._each[row]:
                one = processor(text, one)
            changed.append(one)
        return torch.cat(changed)

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Append a token to the text of each of these rows."""
        for row, token in zip(rows, tokens, strict=True):
            self._texts[row].append(token)


def read_rules(config: Any, ends: Sequence[int]) -> GenerationRules:
    """Return what a ``GenerationConfig`` (or None) asks of answers that end with one of ``ends``."""
    if config is None:
        return GenerationRules({}, (), (), tuple(ends))
    given = {
        name: value
        for name, value in config.to_dict().items()
        if value is not None
        and value is not False
        and not name.startswith("_")
        and (name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name])
        and name not in (*_ELSEWHERE, *_RECORDS)
    }
    applied = {name: given[name] for name in _MAKERS if name in given and (ends or name not in _NEED_ENDS)}
    stops = config.stop_strings or ()
    return GenerationRules(
        applied,
        tuple(sorted(given.keys() - applied.keys())),
        (stops,) if isinstance(stops, str) else tuple(stops),
        tuple(ends),
    )


def neutral_settings(config: Any) -> dict[str, None]:
    """Return the arguments of ``generate`` that switch off every setting of a ``GenerationConfig`` (or None).

    Without those that name tokens and those that a call has to set anyway.
    """
    given = {} if config is None else config.to_dict()
    return {
        name: None
        for name, value in given.items()
        if value is not None and hasattr(config, name) and name not in _SET_BY_CALLS
    }


def mask_logits(logits: torch.Tensor, allowed: np.ndarray) -> None:
    """Put the logits [vocabulary] of tokens that are not allowed to minus infinity, in place.

    Where rules of the model's generation_config forbid every token that is allowed, the form counts: those get 0.
    """
    keep = torch.from_numpy(allowed).to(logits.device)
    size = keep.numel()
    logits[size:] = float("-inf")
    logits[:size].masked_fill_(keep.logical_not(), float("-inf"))
    if bool(torch.isneginf(logits.max())):
        logits[:size].masked_fill_(keep, 0.0)
