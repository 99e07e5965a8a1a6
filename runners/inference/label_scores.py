"""Log-likelihoods of given answers to a prompt, such as the labels of a classification task; nothing is generated.

:func:`encode_answers` returns the tokens that each answer has after a chat's prompt, :class:`AnswerScorer` their
log-likelihoods. Where the own decoder runs the model (:mod:`runners.inference.decoding_path`), a prompt is computed once
and all answers after it in one step, as a tree of their tokens in which each token sees the prompt and the tokens before
it in its own answers. For other models the prompt is computed once by transformers and its cache copied for every answer,
and where the model remembers more than keys and values, every answer is a row of its own with its prompt. A probe compares
the way that is taken with plain rows. Imports torch.

The head computes in fp32 also where the model does not, as logits of 16 to 32 are 0.06 to 0.13 apart in bf16; the hidden
states before it keep their rounding.

What a model's generation_config asks (penalties, forbidden tokens) changes which tokens are chosen, not how likely they
are, so it is not applied to likelihoods.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runners.models import hub

os.environ.update(hub.offline_variables())

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from runners.data.examples import Example
from runners.data.formats import Message
from runners.inference.decoding import PREFILL_MULTIPLE, Decoder
from runners.inference.kv_cache import CachedPrefix, StaticKVCache, layer_caches, shared_length
from runners.inference.transformers_decoder import UNPADDED
from runners.tokenization.chat_template import ChatTokenizer

if TYPE_CHECKING:
    from runners.inference.local import LocalGenerator

AnswerTokens = tuple[tuple[int, ...], ...]
"""The tokens of each answer, the end token included."""
SharedPrefix = tuple[int, CachedPrefix] | None
"""Length of the prefix that prompts share, with its keys and values."""
MAX_LOGITS = 1 << 26
"""Most logits in memory at a time: 256 MiB in fp32."""
STEP_TOKENS = {"cpu": 512}
"""Tokens of all trees of one step, by device: on a CPU more rows make a step no faster."""
GPU_STEP_TOKENS = 8192
MAX_TREE_ROWS = 32
ROW_TOKENS = 12_000
"""Most tokens of prompts and answers that are computed together as rows."""
PROBE_PROMPT, PROBE_ANSWERS = 64, 2
"""Tokens of the probe's prompt, and answers that it compares."""
MAX_ERROR = {torch.float32: 1e-2, torch.float64: 1e-2}
"""Largest difference of an answer's mean log-likelihood per token on the probe: above what rounding gives."""
MAX_ROUNDED_ERROR = 0.35
"""The same in 16 bits, in which everything before the head is rounded."""
HEAD_BLOCK_BYTES = 32 << 20
"""Bytes of the head's weights that are held in fp32 at a time."""
ROW_CACHES = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer"})
"""Kinds of caches of transformers that several tokens can be computed into at once, and whose rows can be repeated."""
_PROBE_QUESTIONS = ("Hi", "Why?")


def encode_answers(
    chat: ChatTokenizer,
    prompts: Sequence[list[int]],
    chats: Sequence[Sequence[Message]],
    labels: Sequence[str],
) -> list[AnswerTokens]:
    """Return the tokens of every label as the answer to each chat, encoded as the answer of a training row is.

    The tokens after a prompt depend on how it ends, which a template writes alike for every chat. So the labels are
    encoded once, after a short chat, and that is used for every prompt whose end has the same tokens; a prompt with
    another end is encoded with every label.

    Args:
        chat: the model's tokenizer, with reasoning off.
        prompts: the chats as tokens.
        chats: the chats.
        labels: the labels.

    Raises:
        BadInput: the template does not keep an answer after its prompt.
    """
    probes: list[list[Message]] = [[{"role": "user", "content": text}] for text in _PROBE_QUESTIONS]
    short = [chat.encode(chat.render(probe, prompt=True)) for probe in probes]
    length = shared_length(short[0][::-1], short[1][::-1])
    end = short[0][len(short[0]) - length :]
    shared = _encode_after(chat, probes[0], labels) if length else ()
    return [
        shared if length and prompt[-length:] == end else _encode_after(chat, messages, labels)
        for prompt, messages in zip(prompts, chats, strict=True)
    ]


def _encode_after(chat: ChatTokenizer, messages: Sequence[Message], labels: Sequence[str]) -> AnswerTokens:
    """Return the tokens of the labels after one chat, each up to its end token."""
    prompt = chat.encode(chat.render(messages, prompt=True))
    own_end = chat.tokenizer.token_to_id(chat.special.get("eos_token", ""))
    answers = []
    for label in labels:
        answer: Message = {"role": "assistant", "content": label}
        row = chat.example(Example((*messages, answer), {}, 1), "last")
        tokens = tuple(row.ids[position] for position in row.learnt)
        if row.learnt and list(row.ids[: len(prompt)]) == prompt:
            # With a token of no width at the start, which is no target of training.
            tokens = row.ids[len(prompt) : row.learnt[-1] + 1]
        # A template may write no end token: then the tokenizer's ends an answer.
        if own_end is not None and not (tokens and tokens[-1] in chat.eos_ids):
            tokens = (*tokens, own_end)
        answers.append(tokens)
    return tuple(answers)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """The tokens of answers as a tree in which answers share their first tokens; the last token of an answer is no node.

    An edge is a node and a token after it. Its log-probability follows from the logits after the node, so the last token
    of an answer need not be computed.
    """

    tokens: tuple[int, ...]
    """The token of each node; a node comes after the node before it in its answers."""
    parents: tuple[int, ...]
    """The node before each node; -1 is the end of the prompt."""
    depths: tuple[int, ...]
    """Distance of each node from the end of the prompt, from 1."""
    edges: tuple[tuple[int, int], ...]
    """(node, token after it)"""
    paths: tuple[tuple[int, ...], ...]
    """The edges of each answer."""

    @classmethod
    def of(cls, answers: AnswerTokens) -> TokenTree:
        """Return the tree of answers, each of one token or more."""
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        edges: dict[tuple[int, int], int] = {}
        nodes: dict[tuple[int, int], int] = {}
        paths = []
        for answer in answers:
            node, path = -1, []
            for depth, token in enumerate(answer, 1):
                edge = (node, token)
                path.append(edges.setdefault(edge, len(edges)))
                if depth == len(answer):
                    break
                if edge not in nodes:
                    nodes[edge] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    depths.append(depth)
                node = nodes[edge]
            paths.append(tuple(path))
        return cls(tuple(tokens), tuple(parents), tuple(depths), tuple(edges), tuple(paths))

    def visible(self) -> torch.Tensor:
        """Return bool [nodes, nodes]: whether a node (row) sees another: itself and those before it in its answers."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


class AnswerScorer:
    """Log-likelihoods of answers by a local model, in the fastest way that agrees with plain rows on it."""

    def __init__(self, generator: LocalGenerator, max_logits: int = MAX_LOGITS) -> None:
        """Take the generator, whose weights may be switched between calls, and the most logits in memory at a time."""
        self._generator = generator
        self._max_logits = max_logits
        self._tree: tuple[AnswerTokens, TokenTree] | None = None
        self._ways: dict[bool, str] = {}
        """The way that is taken by whether there is an own decoder; "" before the probe."""

    def way(self, answers: AnswerTokens, prompt: Sequence[int]) -> str:
        """Return how answers are scored: tree, cached (rows after a copied cache) or rows; probed once."""
        own = self._generator.decoder is not None
        if own not in self._ways:
            wanted = "tree" if own else "cached" if _rows_can_be_copied(self._generator.model) else "rows"
            self._ways[own] = wanted if wanted == "rows" or self._agrees(wanted, prompt, answers) else "rows"
        return self._ways[own]

    @property
    def taken_way(self) -> str:
        """The way that the answers of the current decoder were scored, see :meth:`way`; "" before the first ones."""
        return self._ways.get(self._generator.decoder is not None, "")

    def rows_at_once(self, answers: AnswerTokens) -> int:
        """Return how many prompts are scored together."""
        if self._generator.decoder is None:
            return 1
        tokens = STEP_TOKENS.get(self._generator.model.device.type, GPU_STEP_TOKENS)
        return max(1, min(MAX_TREE_ROWS, tokens // max(1, len(self._tree_of(answers).tokens))))

    def log_likelihoods(
        self, prompts: Sequence[list[int]], answers: AnswerTokens, shared: SharedPrefix = None
    ) -> list[list[float]]:
        """Return the log-likelihood of each answer after each prompt [prompts, answers], the sum over its tokens.

        Args:
            prompts: the prompts as tokens; of similar length, as they are padded.
            answers: the tokens of the answers, all of which must fit the model's context after the prompts.
            shared: the prefix of all prompts, which the own decoder need not compute again.
        """
        way = self.way(answers, prompts[0])
        if way == "tree":
            return self.by_tree(prompts, self._tree_of(answers), shared).tolist()
        score = self.by_cached_rows if way == "cached" else self.by_rows
        # Equal answers would differ by rounding in rows of their own.
        distinct = tuple(dict.fromkeys(answers))
        columns = [distinct.index(answer) for answer in answers]
        rows = [score(prompt, distinct).tolist() for prompt in prompts]
        return [[row[column] for column in columns] for row in rows]

    def _agrees(self, way: str, prompt: Sequence[int], answers: AnswerTokens) -> bool:
        """Return whether a way gives what plain rows give, for a short prompt and a few answers."""
        short = list(prompt[-PROBE_PROMPT:])
        # The longest answers, as their last tokens depend on the most.
        few = tuple(sorted(answers, key=len, reverse=True)[:PROBE_ANSWERS])
        lengths = torch.tensor([len(answer) for answer in few])
        expected = self.by_rows(short, few) / lengths
        score = (
            self.by_tree([short], TokenTree.of(few), None)[0]
            if way == "tree"
            else self.by_cached_rows(short, few)
        )
        limit = MAX_ERROR.get(self._generator.model.dtype, MAX_ROUNDED_ERROR)
        return bool(((score / lengths - expected).abs() <= limit).all())  # False for NaN too

    def _tree_of(self, answers: AnswerTokens) -> TokenTree:
        """Return the tree of answers; that of the last ones is kept."""
        if self._tree is None or (self._tree[0] is not answers and self._tree[0] != answers):
            self._tree = answers, TokenTree.of(answers)
        return self._tree[1]

    @torch.inference_mode()
    def by_tree(self, prompts: Sequence[list[int]], tree: TokenTree, shared: SharedPrefix) -> torch.Tensor:
        """Return the log-likelihoods [prompts, answers] with the own decoder: the prompts, then the tree in steps."""
        decoder = self._generator.decoder
        assert decoder is not None
        with _head_in_fp32(decoder.model, decoder):
            return self._tree_likelihoods(decoder, prompts, tree, shared)

    def _tree_likelihoods(
        self, decoder: Decoder, prompts: Sequence[list[int]], tree: TokenTree, shared: SharedPrefix
    ) -> torch.Tensor:
        """Return what :meth:`by_tree` does, by the head of the decoder as it is now."""
        before = shared[0] if shared else 0
        # Where the model's own layers read the prompts, oneDNN keeps a kernel for each length; the fused prefill reads every
        # row without its padding.
        multiple = PREFILL_MULTIPLE if decoder.fused_prefill is None else 1
        ids, mask, positions = decoder.left_padded([prompt[before:] for prompt in prompts], before, multiple)
        nodes, rows = len(tree.tokens), len(prompts)
        cache = StaticKVCache(decoder.layers, rows, before + ids.shape[1] + nodes)
        if shared:
            cache.load_prefix(shared[1], before)
        logits = decoder.prefill(ids, mask, positions, cache)
        edges = torch.zeros(rows, len(tree.edges) + 1, dtype=torch.float32)
        _take_edges(edges, logits[:, None], tree, -1)
        last = positions[:, -1:]
        padding = torch.zeros(mask.shape, dtype=decoder.model.dtype, device=ids.device)
        padding.masked_fill_(mask == 0, decoder.lowest)
        hidden = torch.zeros(nodes, nodes, dtype=decoder.model.dtype)
        hidden = hidden.masked_fill_(~tree.visible(), decoder.lowest).to(ids.device)
        depths = torch.tensor(tree.depths, dtype=torch.long, device=ids.device)
        tokens = torch.tensor(tree.tokens, dtype=torch.long, device=ids.device)
        at_once = max(1, self._max_logits // (rows * logits.shape[-1]))
        for start in range(0, nodes, at_once):
            end = min(nodes, start + at_once)
            # [rows, 1, new, tokens]: a node sees its prompt, then itself and the nodes before it, in earlier steps too.
            seen = torch.cat(
                (
                    padding[:, None, None].expand(rows, 1, end - start, -1),
                    hidden[None, None, start:end, :end].expand(rows, 1, -1, -1),
                ),
                dim=-1,
            )
            logits = decoder.step(
                tokens[None, start:end].expand(rows, -1), last + depths[start:end], cache, seen
            )
            _take_edges(edges, logits, tree, start)
        return _sums(edges, tree.paths)

    @torch.inference_mode()
    def by_cached_rows(self, prompt: list[int], answers: AnswerTokens) -> torch.Tensor:
        """Return the log-likelihoods [answers] after one prompt by transformers, its cache copied for rows of answers."""
        model = _model_of(self._generator)
        with _head_in_fp32(model):
            return self._cached_likelihoods(model, prompt, answers)

    def _cached_likelihoods(self, model: Any, prompt: list[int], answers: AnswerTokens) -> torch.Tensor:
        """Return what :meth:`by_cached_rows` does, by the head of the model as it is now."""
        config = model.config.get_text_config(decoder=True)
        once = DynamicCache(config=config)
        named = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        logits = model(**_inputs(model, [prompt], last=1), **{named: once}, use_cache=True).logits
        first = logits[0, -1].float().log_softmax(-1).cpu()
        likelihoods = torch.zeros(len(answers), dtype=torch.float32)
        for group in _row_groups(answers, len(prompt), logits.shape[-1], self._max_logits):
            rows = [list(answers[index]) for index in group]
            cache = copy.deepcopy(once)
            cache.batch_repeat_interleave(len(rows))
            after = None
            if len(rows[0]) > 1:  # the longest of the group
                after = model(
                    **_inputs(model, [row[:-1] for row in rows], before=len(prompt)),
                    **{named: cache},
                    use_cache=True,
                ).logits
            for number, index in enumerate(group):
                total = first[rows[number][0]]
                if after is not None and len(rows[number]) > 1:
                    total = total + _sum_of(after[number], rows[number][1:])
                likelihoods[index] = total
        return likelihoods

    @torch.inference_mode()
    def by_rows(self, prompt: list[int], answers: AnswerTokens) -> torch.Tensor:
        """Return the log-likelihoods [answers] after one prompt by transformers, each answer a row with its prompt."""
        model = _model_of(self._generator)
        likelihoods = torch.zeros(len(answers), dtype=torch.float32)
        vocabulary = model.get_input_embeddings().num_embeddings
        padded = self._generator.path.padded
        for group in _row_groups(answers, len(prompt), vocabulary, self._max_logits, padded):
            rows = [[*prompt, *answers[index][:-1]] for index in group]
            width = max(map(len, rows))
            # Padded on the right, where no token of an answer sees it.
            last = width - len(prompt) + 1
            with _head_in_fp32(model):
                logits = model(**_inputs(model, rows, last=last), use_cache=False).logits[:, -last:]
            for number, index in enumerate(group):
                likelihoods[index] = _sum_of(logits[number], answers[index])
        return likelihoods


@contextmanager
def _head_in_fp32(model: Any, decoder: Decoder | None = None) -> Iterator[None]:
    """Let the head of a model, and of the decoder's fused step, compute in fp32 where its weights are in 16 bits.

    A head that is more than a linear layer, such as one with an adapter of its own, stays as it is.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.weight.dtype not in (torch.bfloat16, torch.float16):
        yield
        return
    product = partial(fp32_product, weight=head.weight, bias=head.bias)
    fused = decoder.fused_step if decoder is not None else None
    own = fused.head if fused is not None else None
    try:
        # On the module itself: the model calls it, and goes on with its result as with that of its class.
        head.forward = product  # type: ignore[method-assign]
        if fused is not None:
            fused.head = product
        yield
    finally:
        del head.forward
        if fused is not None and own is not None:
            fused.head = own


def fp32_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x @ weightᵀ + bias`` in fp32 [..., out] of x [..., in] and weight [out, in] in 16 bits, block by block."""
    flat = x.reshape(-1, x.shape[-1]).float()
    result = flat.new_empty(len(flat), len(weight))
    rows = max(1, HEAD_BLOCK_BYTES // (4 * weight.shape[1]))
    for start in range(0, len(weight), rows):
        result[:, start : start + rows] = F.linear(flat, weight[start : start + rows].float())
    if bias is not None:
        result += bias
    return result.view(*x.shape[:-1], -1)


def _take_edges(edges: torch.Tensor, logits: torch.Tensor, tree: TokenTree, start: int) -> None:
    """Write the log-probabilities of the edges of some nodes into ``edges`` [rows, all edges].

    Args:
        edges: what is filled.
        logits: after each node [rows, new, vocabulary].
        tree: the tree.
        start: the first of these nodes; -1 for the end of the prompt.
    """
    here = [
        (number, node - start, token)
        for number, (node, token) in enumerate(tree.edges)
        if 0 <= node - start < logits.shape[1]
    ]
    if not here:
        return
    numbers, nodes, tokens = (torch.tensor(each) for each in zip(*here, strict=True))
    wide = logits.float()
    each = (
        wide[:, nodes.to(wide.device), tokens.to(wide.device)] - wide.logsumexp(-1)[:, nodes.to(wide.device)]
    )
    edges[:, numbers] = each.cpu()


def _sums(edges: torch.Tensor, paths: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Return the sums of the edges of each path [rows, paths]; the last column of ``edges`` is zero."""
    longest = max(map(len, paths))
    zero = edges.shape[1] - 1
    index = torch.tensor([[*path, *[zero] * (longest - len(path))] for path in paths])
    return edges[:, index].sum(-1)


def _model_of(generator: LocalGenerator) -> Any:
    """Return the model without PEFT's wrapper, which hides the arguments of its forward."""
    model = generator.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _rows_can_be_copied(model: Any) -> bool:
    """Return whether transformers' cache of a model is only keys and values, so that its rows can be repeated."""
    text = model.config.get_text_config(decoder=True)
    try:
        kinds = set(layer_caches(text))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False
    return bool(kinds) and kinds <= ROW_CACHES and text.model_type not in UNPADDED


def _inputs(model: Any, rows: Sequence[list[int]], last: int = 0, before: int = 0) -> dict[str, Any]:
    """Return the arguments of a model for rows, padded on the right, after ``before`` cached tokens.

    ``last``: how many of the last tokens logits are wanted of; 0 is all. Models without that argument return all.
    """
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor(
        [[1] * (before + len(row)) + [0] * (width - len(row)) for row in rows], device=model.device
    )
    limit = (
        {"logits_to_keep": last} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    )
    return {"input_ids": ids, "attention_mask": mask, **limit}


def _row_groups(
    answers: AnswerTokens, prompt: int, vocabulary: int, max_logits: int, padded: int = 1 << 40
) -> Iterator[list[int]]:
    """Yield the indexes of answers that are rows of one batch, the longest first.

    Args:
        answers: the answers.
        prompt: tokens of the prompt.
        vocabulary: logits of a token.
        max_logits: of one batch.
        padded: most tokens up to which rows of unequal length may be padded.
    """
    group: list[int] = []
    for index in sorted(range(len(answers)), key=lambda n: (-len(answers[n]), n)):
        longest = len(answers[group[0]]) if group else 0
        rows = len(group) + 1
        full = rows * (prompt + longest) > ROW_TOKENS or rows * longest * vocabulary > max_logits
        apart = prompt + longest > padded and len(answers[index]) != longest
        if group and (full or apart):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _sum_of(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Return the sum of the log-probabilities of tokens, each by the logits [tokens or more, vocabulary] before it."""
    wide = logits[: len(tokens)].float()
    index = torch.tensor(tokens, device=wide.device)
    return (wide.gather(-1, index[:, None])[:, 0] - wide.logsumexp(-1)).sum().cpu()
