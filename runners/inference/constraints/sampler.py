"""Hold the answers of a local model to a constraint, token by token, with llguidance.

:class:`ConstraintCompiler` compiles an :class:`runners.inference.constraints.constraint.OutputConstraint` for a tokenizer;
:class:`ConstrainedSampler` puts the logits of all tokens that would leave it to minus infinity before a token is chosen.

A constraint alone does not make an answer whole: JSON could be cut at the limit of tokens. So a row keeps the shortest
way to complete its answer: a token is only taken when that way still fits the tokens that are left, else the way itself
is begun. That an answer was closed so is reported as the finish ``length``. Imports numpy, torch and llguidance.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer

from rag.errors import BadInput
from runners.data.reasoning import TAGS
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.decoding import TokenSampler
from runners.inference.generation_rules import mask_logits
from runners.inference.streaming import TextStream

MAX_CLOSING = 1024
"""Most tokens of a shortest completion that are looked for."""
MAX_FREE = 64
"""Tokens of free text in a row after which no end of it is looked for: each costs masks, and ``.*xyz`` has none that trying
finds. The longest tokens of a vocabulary have 20 to 80 characters."""
MAX_LAST_DIGITS = 3
"""Digits of which all are tried to end a number: enough for divisors below 1,000."""
LONG_COMPLETION = 6
"""Tokens of the shortest answer above which a shorter one is searched for: the first way tried may run through a number."""
MAX_SEARCHED = 64
"""States that the search for a shorter completion looks at: some milliseconds."""
MAX_COMPILED = 64
"""Constraints that are kept: a server gets a new one with every schema of its clients."""
TAIL_RESERVE = 12
"""Tokens that are left for the rest of a fixed last line when it has to be begun: a number of up to ten digits."""
LEAD = "[ \\n]{0,2}"
"""White space that an answer may begin with, which is cut from it: templates and tokenizers differ in the first token."""
JSON_SPACE = "( |\\n {0,40})?"
"""White space inside JSON: none, a space, or a line break with indentation; bounded, so that none is repeated endlessly."""
_SLASH = re.compile(r"(\\.)|/", re.DOTALL)
_CLOSERS = ("}", "]", ",", ":", ", ", ": ", '"', ' "', "1", "0", "null", "true", "[", "{")
"""Texts that complete JSON, the shortest way first, where no string is open; a digit after what ends a number."""
_STRUCTURE = ('"', "\n", "0", ".", "?", " ", "@", ":", "a")
"""Texts that may lead out of a free part of a pattern."""


class ConstraintCompiler:
    """Compiles constraints for one tokenizer, and keeps what it compiled."""

    def __init__(self, tokenizer: Any, ends: Iterable[int], vocabulary: int) -> None:
        """Read the tokenizer.

        Args:
            tokenizer: transformers' tokenizer of the model.
            ends: the tokens that end an answer.
            vocabulary: number of the model's logits.

        Raises:
            BadInput: the tokenizer is not one of the tokenizers library.
        """
        self.ends = frozenset(ends)
        try:
            self._tokenizer: LLTokenizer = llguidance.hf.from_tokenizer(
                tokenizer, n_vocab=vocabulary, eos_token=sorted(self.ends)
            )
        except ValueError as error:
            raise BadInput(
                f"answers cannot be constrained to a form with this model's tokenizer: {error}",
                "set constrain: off in the plan",
            ) from None
        self.vocabulary = vocabulary
        self._encode: Callable[[str], list[int]] = lambda text: tokenizer.encode(
            text, add_special_tokens=False
        )
        self._compiled: dict[OutputConstraint, tuple[LLMatcher, int]] = {}
        self._closers = self._single_tokens(_CLOSERS)
        self._structure = self._single_tokens(_STRUCTURE)
        self._digits = self._single_tokens(tuple("1023456789"))
        self._after_value = self._single_tokens(("}", "]", ","))
        hash_sign = self._single_tokens(("#",))
        # Where a string is open, nearly every character is allowed, "#" among them; elsewhere in JSON it never is.
        self._any_character = hash_sign[0] if hash_sign else None
        texts = (self._tokenizer.decode_bytes([token]) for token in range(vocabulary))
        # White space alone never leads to the end of an answer.
        self._widths = np.array([len(text) if text.strip() else 0 for text in texts])

    def problem(self, constraint: OutputConstraint) -> str:
        """Return why a constraint cannot be enforced; "" when it can."""
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar(constraint), self._tokenizer)
        return "; ".join(messages) if failed else ""

    def start(self, constraint: OutputConstraint) -> LLMatcher:
        """Return a matcher at the beginning of an answer; BadInput for a constraint that cannot be enforced."""
        return self._entry(constraint)[0].deep_copy()

    def needed_tokens(self, constraint: OutputConstraint) -> int:
        """Return how many tokens an answer needs: the longest label, or the shortest answer of another constraint."""
        return self._entry(constraint)[1]

    def allowed(self, matcher: LLMatcher) -> np.ndarray:
        """Return which tokens a matcher allows next, as booleans [vocabulary]; the end tokens are among them."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self.vocabulary, bitorder="little").view(np.bool_)

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens of a text, without special ones."""
        return self._encode(text)

    def completion(self, matcher: LLMatcher, tail: str = "", within: int | None = None) -> list[int] | None:
        """Return the tokens of a short way to a whole answer: [] for one that is whole; None where none is known.

        What is forced is taken; elsewhere the token that closes what is open, else the longest one, is tried.

        Args:
            matcher: the state of the answer; it is not changed.
            tail: the text that begins the fixed end of a pattern.
            within: tokens above which the first completion of a pattern is compared with others; None: never.
        """
        if matcher.is_accepting():
            return []
        if tail:
            begun = matcher.deep_copy()
            first = self.tokens_of(tail)
            direct = self._completion(matcher.deep_copy(), 4)
            if begun.try_consume_tokens(first) == len(first):
                rest = self._completion(begun, TAIL_RESERVE)
                if rest is not None and (direct is None or len(direct) > len(first) + len(rest)):
                    return first + rest
            return direct
        first_tried = self._completion(matcher.deep_copy(), MAX_CLOSING)
        if within is None or (first_tried is not None and len(first_tried) <= within):
            return first_tried
        tried = (first_tried, self._searched_completion(matcher))
        return min((way for way in tried if way is not None), key=len, default=None)

    def _entry(self, constraint: OutputConstraint) -> tuple[LLMatcher, int]:
        if constraint not in self._compiled:
            matcher = LLMatcher(self._tokenizer, grammar(constraint), log_level=0)
            if matcher.is_error():
                raise BadInput(
                    f"answers cannot be constrained to their form: {matcher.get_error().splitlines()[0][:200]}",
                    "set constrain: off in the plan, or change the check",
                )
            if constraint.kind == "labels":
                needed = max(len(self.tokens_of(label)) for label in constraint.value) + 1
            else:
                within = LONG_COMPLETION if constraint.kind == "regex" else None
                needed = len(self.completion(matcher, constraint.tail, within) or ())
            if len(self._compiled) >= MAX_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[constraint] = matcher, needed
        return self._compiled[constraint]

    def _single_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of those texts that are one token."""
        encoded = (self.tokens_of(text) for text in texts)
        single = (tokens[0] for tokens in encoded if len(tokens) == 1)
        decoded = {
            token: self._tokenizer.decode_bytes([token]).decode("utf-8", "replace") for token in single
        }
        return [token for token, text in decoded.items() if text in texts]

    def _completion(self, matcher: LLMatcher, most: int) -> list[int] | None:
        """Return the tokens that complete an answer, at most ``most``; the matcher is moved on."""
        taken: list[int] = []
        free = 0
        while not matcher.is_accepting():
            step = matcher.compute_ff_tokens()
            in_text = False
            if not step:
                token, in_text = self._closing_token(matcher)
                step = [token]
            free = free + 1 if in_text else 0
            too_long = free > MAX_FREE or len(taken) + len(step) > most
            if too_long or not matcher.consume_tokens(step):
                return None
            taken += step
        return taken

    def _searched_completion(self, matcher: LLMatcher) -> list[int] | None:
        """Return the shortest completion of closing and forced tokens; None where the search ends before."""
        ways = dict.fromkeys((*self._closers, *self._structure))
        queue: list[tuple[int, int, LLMatcher, list[int]]] = [(0, 0, matcher.deep_copy(), [])]
        for number in range(MAX_SEARCHED):
            if not queue:
                return None
            _, _, state, taken = heapq.heappop(queue)
            if state.is_accepting():
                return taken
            forced, bits = state.compute_ff_tokens(), state.compute_bitmask()
            steps = [forced] if forced else [[token] for token in ways if _bit(bits, token)]
            for place, step in enumerate(steps):
                after = state.deep_copy()
                if after.consume_tokens(step):
                    order = (len(taken) + len(step), number * len(ways) + place)
                    heapq.heappush(queue, (*order, after, [*taken, *step]))
        return None

    def _closing_token(self, matcher: LLMatcher) -> tuple[int, bool]:
        """Return the token that is tried next on the way to a whole answer, and whether it is free text."""
        bits = matcher.compute_bitmask()
        in_text = self._any_character is not None and _bit(bits, self._any_character)
        if in_text:
            for token in self._structure:
                if _bit(bits, token) and self._leads_on(matcher, token):
                    return token, True
        else:
            for token in self._closers:
                if _bit(bits, token):
                    ended = self._number_end(matcher) if token in self._digits else None
                    return token if ended is None else ended, False
        return int(np.where(self.allowed(matcher), self._widths, -1).argmax()), in_text

    def _number_end(self, matcher: LLMatcher) -> int | None:
        """Return the first digit of the shortest one to three that complete a number; None where none do.

        A bound or a divisor (``multipleOf``) allows a number to end after certain digits only.
        """
        states: list[tuple[LLMatcher, int | None]] = [(matcher, None)]
        for _ in range(MAX_LAST_DIGITS):
            following: list[tuple[LLMatcher, int | None]] = []
            for state, first in states:
                bits = state.compute_bitmask()
                for digit in self._digits:
                    if not _bit(bits, digit):
                        continue
                    after = state.deep_copy()
                    if not after.consume_token(digit):
                        continue
                    begun = digit if first is None else first
                    ends = after.compute_bitmask()
                    if after.is_accepting() or any(_bit(ends, token) for token in self._after_value):
                        return begun
                    following.append((after, begun))
            states = following
        return None

    def _leads_on(self, matcher: LLMatcher, token: int) -> bool:
        """Return whether a token leaves the free text: an end, something forced, or no free text follows."""
        after = matcher.deep_copy()
        if not after.consume_token(token):
            return False
        if after.is_accepting() or after.compute_ff_bytes():
            return True
        return self._any_character is None or not _bit(after.compute_bitmask(), self._any_character)


def grammar(constraint: OutputConstraint) -> str:
    """Return llguidance's grammar of a constraint: white space, then the answer or one of its alternatives."""
    others = "".join(f" | {_quoted(text)}" for text in constraint.also if text.strip())
    if constraint.kind == "labels":
        answer = " | ".join(map(_quoted, constraint.value))
    elif constraint.kind == "regex":
        # An unescaped slash would end the pattern in the grammar.
        answer = f"/{_SLASH.sub(lambda match: match[1] or chr(92) + '/', str(constraint.value))}/"
    else:
        schema = constraint.schema
        own = schema.get("x-guidance", {})
        own = dict(own) if isinstance(own, dict) else {}
        if "whitespace_flexible" not in own:  # which the pattern would override
            own.setdefault("whitespace_pattern", JSON_SPACE)
        schema["x-guidance"] = own
        answer = f"%json {json.dumps(schema, ensure_ascii=False)}"
    return LLMatcher.grammar_from_lark(f"start: LEAD? answer\nLEAD: /{LEAD}/\nanswer: {answer}{others}\n")


def _bit(bits: bytes, token: int) -> bool:
    """Return whether a token is allowed, by llguidance's mask of one bit for each token."""
    return bool(bits[token >> 3] >> (token & 7) & 1)


def _quoted(text: str) -> str:
    """Return a text as a string of the grammar; what is not printable is escaped, which its lexer asks for."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in quoted)


class AnswerState:
    """How far one answer is, and which token may come next."""

    def __init__(
        self,
        compiler: ConstraintCompiler,
        constraint: OutputConstraint,
        limit: int,
        most: int,
        reasoning: TextStream | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            compiler: the compiler of the model's tokenizer.
            constraint: what the answer may be.
            limit: most tokens of the answer.
            most: most tokens of the answer and the reasoning before it.
            reasoning: follows the text of a model that may reason first, which the constraint does not concern; None for
                one that does not.
        """
        self._compiler = compiler
        self._tail = constraint.tail
        self._is_pattern = constraint.kind == "regex"
        self._matcher = compiler.start(constraint)
        self._limit = limit
        self._most = most
        self._reasoning = reasoning
        self._free = reasoning is not None and reasoning.inside_reasoning
        self._may_open = reasoning is not None and not self._free
        self._closing: list[int] = []
        """The completion that is being written, because the tokens run out."""
        self.count = 0
        """Tokens taken so far, the reasoning's among them."""
        self._used = 0
        self.closed = False
        """Whether the answer was completed because its tokens ran out."""
        self.left_form = ""
        """Why the answer is not held to its form any more; "" while it is."""

    def opens_reasoning(self, token: int, text: str) -> bool:
        """Return whether the first token of an answer begins reasoning; then it is free until that is closed."""
        begins = text.strip()
        if not self._may_open or self.count or not begins:
            return False
        return any(tags.opening.startswith(begins) or begins.startswith(tags.opening) for tags in TAGS)

    @property
    def may_open_reasoning(self) -> bool:
        """Whether the next token may begin reasoning."""
        return self._may_open and self.count == 0

    @property
    def free(self) -> bool:
        """Whether any token may come next."""
        return self._free or bool(self.left_form)

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing can follow."""
        return not self.free and not self._matcher.is_error() and self._matcher.is_stopped()

    def allowed(self) -> np.ndarray:
        """Return which tokens may come next, as booleans [vocabulary]."""
        return self._compiler.allowed(self._matcher)

    def take(self, token: int, opens: bool = False) -> int:
        """Take the chosen token, or the one that completes the answer in its place; return the token taken.

        Args:
            token: the token that the model chose among those allowed.
            opens: whether it begins reasoning.
        """
        self._free = self._free or opens
        if self.free:
            self.count += 1
            self._follow_reasoning(token)
            return token
        token = self._within_limit(token)
        self.count += 1
        self._used += 1
        if token not in self._compiler.ends and not self._matcher.consume_token(token):
            self.left_form = self._matcher.get_error() or "a token that its form does not allow"
        return token

    def _within_limit(self, token: int) -> int:
        """Return the chosen token, or the first of the completion when the answer could not be completed after it."""
        if token in self._compiler.ends:
            return token
        left = min(self._limit - self._used, self._most - self.count)
        if not self._closing:
            after = self._matcher.deep_copy()
            if not after.consume_token(token):
                return token
            within = left - 1 if self._is_pattern else None
            way = self._compiler.completion(after, self._tail, within)
            if way is None or self._fits(way, left - 1):
                return token
            now = self._compiler.completion(self._matcher, self._tail, within)
            if now is None:
                return token
            self.closed = True
            if not now:
                return min(self._compiler.ends)
            # Only the beginning of a fixed last line is written in the model's place; its number is the model's own.
            self._closing = self._tail_tokens if self._starts_tail(now) else now
        return self._closing.pop(0)

    def _fits(self, way: Sequence[int], left: int) -> bool:
        """Return whether a completion fits the tokens that are left, with room for the number of a last line."""
        return len(way) + (TAIL_RESERVE if self._starts_tail(way) else 0) <= left

    def _starts_tail(self, way: Sequence[int]) -> bool:
        """Return whether a completion begins the fixed last line of the form."""
        tokens = self._tail_tokens
        return bool(tokens) and list(way[: len(tokens)]) == tokens

    @property
    def _tail_tokens(self) -> list[int]:
        return self._compiler.tokens_of(self._tail) if self._tail else []

    def _follow_reasoning(self, token: int) -> None:
        """Follow the text until the reasoning is closed; what follows it in the same token is part of the answer."""
        if self._reasoning is None:
            return
        self._reasoning.add(token)
        if self._reasoning.inside_reasoning or not self._reasoning.has_reasoning:
            return
        self._free = self._may_open = False
        begun = self._reasoning.rest()
        tokens = self._compiler.tokens_of(begun) if begun.strip() else []
        if self._matcher.try_consume_tokens(tokens) != len(tokens):
            self.left_form = "its first words came with the end of the reasoning"


class ConstrainedSampler(TokenSampler):
    """Chooses tokens among those that each row's answer allows, by another sampler."""

    def __init__(
        self, inner: TokenSampler, states: Mapping[int, AnswerState], decode: Callable[[list[int]], str]
    ) -> None:
        """Wrap a sampler.

        Args:
            inner: chooses among the tokens that are allowed.
            states: the state of each row that is held to a form, by the sampler's index of the row.
            decode: returns the text of tokens.
        """
        super().__init__(inner.sampling)
        self._inner = inner
        self._states = states
        self._decode = decode

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        masked = logits.clone()
        opened = [self._opened(logits[index : index + 1], row) for index, row in enumerate(rows)]
        for index, row in enumerate(rows):
            state = self._states.get(row)
            if state is not None and not state.free and opened[index] is None:
                mask_logits(masked[index], state.allowed())
        chosen = self._inner.sample(masked, rows)
        tokens = []
        for token, row, first in zip(chosen, rows, opened, strict=True):
            state = self._states.get(row)
            if state is None:
                tokens.append(token)
            elif first is not None:
                tokens.append(state.take(first, opens=True))
            else:
                tokens.append(state.take(token))
        return tokens

    def verify(self, logits: torch.Tensor, guess: Sequence[int]) -> list[int]:
        """Return the guessed tokens that would have been chosen for row 0, and the one after them; see the base class."""
        chosen: list[int] = []
        for position in range(len(logits)):
            chosen += self.sample(logits[position : position + 1], (0,))
            if position == len(guess) or chosen[-1] != guess[position]:
                break
        return chosen

    def is_complete(self, row: int, count: int) -> bool:
        """Return whether a row's answer is whole after its first ``count`` tokens, and nothing can follow."""
        state = self._states.get(row)
        return state is not None and state.count == count and state.complete

    def is_looping(self, row: int, tokens: Sequence[int]) -> bool:
        """Return whether a row without a constraint repeats itself."""
        return row not in self._states and super().is_looping(row, tokens)

    def was_closed(self, row: int) -> bool:
        """Return whether a row's answer was completed because its tokens ran out."""
        state = self._states.get(row)
        return state is not None and state.closed

    def _opened(self, logits: torch.Tensor, row: int) -> int | None:
        """Return the likeliest token where it begins reasoning that the row may begin; else None."""
        state = self._states.get(row)
        if state is None or not state.may_open_reasoning:
            return None
        token = int(logits.argmax(-1))
        return token if state.opens_reasoning(token, self._decode([token])) else None
