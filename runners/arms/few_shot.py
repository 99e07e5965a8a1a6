"""Prompts to try for an arm without weights: banks of examples, and instructions.

:func:`prompt_candidates` builds them; :mod:`runners.arms.prompt_selection` chooses one on dev questions. Banks are

- fixed: drawn by the seed, the default; the same reversed; examples of other documents; such without a refusal;
- many: as many as fit what is left of the model's context, every label or document in turn. They are the same for
  all questions, so that they are read once. More examples keep helping with labels (Bertsch et al. 2024,
  arXiv 2405.00200);
- nearest: the examples whose questions are nearest to each question by the embedder, which need fewer examples for
  the same score (the same paper). They differ by question and are read anew for each, so that fewer tokens are
  allowed (:data:`NEAREST_TOKENS_CPU`);
- with passages: of an arm that retrieves, one or two examples whose turn has the form of the question's own: with the
  passages that hold the answer.

Layouts are the plan's instructions as the system turn; of an arm that retrieves the same after the passages and the
question, between them, or with the question before the passages too, because small models follow what they read last; the
first sentence of the instructions alone; the instructions followed by the labels, or by the keys of the JSON object, where
replies have that form and the instructions do not name them; and the same followed by the plan's style checks as rules.

The order is the order in which they are tried where the budget is too small for all: with labels and JSON the nearest
examples come first after the fixed bank.

Only the arm's own prompt changes; tuned arms keep the plan's instructions, because their rows are built on them, and a
list of rules that helps a base model need not help a model that has learnt the style. To have a wording in every arm,
write it into ``prompts.system``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.files import sha256_text
from rag.text.words import sentences
from runners.arms.prompts import FewShotExamples, choose_shots
from runners.data.examples import Example
from runners.data.labels import labels_of
from runners.data.questions import Question
from runners.plan.data import PLACEHOLDERS
from runners.plan.schema import Plan
from runners.scoring.style_checks import rule_text

if TYPE_CHECKING:
    import numpy as np

    from rag.embedding.protocol import Encoder

FIXED_BANK = "fixed"
"""Name of the default bank: drawn by the seed, with the plan's instructions."""
PLAN_INSTRUCTIONS = "the plan's instructions"
"""Name of the default of an arm without examples."""
SHORT = "short instructions"
"""Label of the layout that has the first sentence of the instructions alone."""
TURN_TOKENS = 8
"""Tokens that a chat template adds to a turn, at most: ChatML, Llama 3 and Gemma add 5."""
QUESTION_TOKENS_KEPT = 256
"""Tokens of the context that are kept free beside the longest known question: later ones may be longer."""
NEAREST_TOKENS_CPU = 1_024
"""Most tokens of examples that differ by question, on a CPU: as many as the passages of a question may have
(``context_tokens``), so that such a bank makes no question dearer to read than retrieval does. The default model reads
1,055 tokens in 5.9 s on two busy cores, and 1,500 tokens/s on idle ones (benchmarks/LOG.md, 2026-11-27)."""
NEAREST_TOKENS_GPU = 8_192
"""The same on a GPU. Our assumption; not measured."""
MANY_TOKENS_CPU = 3_072
"""Most tokens of a bank that is read once, on a CPU: every token of an answer attends to all of them, and 3,000 are taken to
double an answer's time (advisor/costs/step_time.py). The default model reads 1,500 tokens/s on idle cores
(benchmarks/LOG.md, 2026-11-27)."""
MANY_TOKENS_GPU = 32_768
"""The same on a GPU. Every answer's whole prompt is in the trial's journal: 150 answers after so many tokens are about
20 MB of it."""
REMOTE_TOKENS = 2_048
"""Most tokens of examples for an endpoint, whose context is not known here and which bills them with every question."""
NEAREST_COUNTS = (8, 16, 4)
"""Numbers of nearest examples, the likeliest first."""
MAX_NEAREST = 64
"""Most nearest examples in one prompt, as in a plan's ``shots``."""
MAX_LISTED_CHARACTERS = 4_000
"""Longest list of labels, about 1,000 tokens, that is written into instructions."""
MAX_REMEMBERED = 10_000
"""Questions whose nearest examples are remembered."""
_LAYOUT_RANK = 2
"""Ranks of banks that another layout comes after the plan's: see :func:`prompt_candidates`."""


@dataclass(frozen=True, slots=True)
class ShotLimits:
    """The most tokens that the examples of a prompt may have."""

    fixed: int
    """Of a bank that is the same for all questions; it is read once."""
    nearest: int
    """Of a bank that differs by question; it is read for each."""


@dataclass(frozen=True, slots=True)
class NearestSetting:
    """How examples near to a question are chosen and ordered."""

    count: int
    nearest_last: bool = True
    max_tokens: int | None = None
    """Most tokens of the examples together; the farthest are left out. None is no limit."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a prompt has its instructions, and which."""

    label: str
    system: str
    context: str
    """The user turn with passages, as ``prompts.context`` of a plan."""


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """One prompt to try: a layout, and the examples in order."""

    name: str
    system: str
    context: str
    shots: tuple[Example, ...] = ()
    nearest: NearestSetting | None = None
    """Where the examples are chosen for each question; ``shots`` are shown before those."""

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as stored in `trial/prompts.json`.

        The examples are stored with it, so that the run can be asked without the examples' file; those that the nearest
        are chosen from are stored once for all arms.
        """
        stored: dict[str, Any] = {"name": self.name, "system": self.system, "context": self.context}
        stored["shots"] = list(map(shot_json, self.shots))
        if self.nearest:
            order = "nearest last" if self.nearest.nearest_last else "nearest first"
            stored |= {
                "nearest": self.nearest.count,
                "order": order,
                "max_tokens": self.nearest.max_tokens,
            }
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> PromptCandidate:
        """Return the candidate that :meth:`to_json` stored."""
        nearest = None
        if "nearest" in stored:
            last = stored["order"] != "nearest first"
            nearest = NearestSetting(stored["nearest"], last, stored["max_tokens"])
        shots = tuple(map(stored_shot, stored["shots"]))
        return cls(stored["name"], stored["system"], stored["context"], shots, nearest)

    def applied(self, plan: Plan) -> Plan:
        """Return the plan with the candidate's layout, for one arm."""
        layout = {"system": self.system, "context": self.context}
        return plan.model_copy(update={"prompts": plan.prompts.model_copy(update=layout)})

    def shown(self, pool: ExamplePool | None) -> FewShotExamples:
        """Return the examples that the arm shows; ``pool`` is what the nearest are chosen from."""
        if self.nearest is None:
            return self.shots
        if pool is None:
            raise ValueError("the nearest examples are chosen from a pool")
        nearest = NearestExamples(pool, self.nearest)
        return lambda question: (*self.shots, *nearest(question))


class ExamplePool:
    """Examples that can be shown, with their lengths and the vectors of their questions, each computed once."""

    def __init__(
        self,
        examples: Sequence[Example],
        count_tokens: Callable[[str], int],
        encoder: Encoder | None = None,
        vectors: np.ndarray | None = None,
    ) -> None:
        """Take the examples; plain texts are left out.

        Args:
            examples: the examples.
            count_tokens: counts tokens as the answering model does.
            encoder: the embedder; None where no nearest examples are wanted.
            vectors: the vectors of the examples' questions where they are known [rows, dimensions], in the order of
                ``rows``; embedded when they are first needed otherwise.
        """
        self.rows = tuple(
            sorted((e for e in examples if not e.raw), key=lambda e: sha256_text(f"{e.question}\0{e.reply}"))
        )
        self.encoder = encoder
        self._count_tokens = count_tokens
        self._tokens: dict[int, int] = {}
        self._vectors = vectors
        self._ranked: dict[str, list[int]] = {}

    def tokens(self, position: int) -> int:
        """Return the tokens of the two turns of an example, with what a chat template adds to them."""
        if position not in self._tokens:
            row = self.rows[position]
            turns = self._count_tokens(row.question) + self._count_tokens(row.reply)
            self._tokens[position] = turns + 2 * TURN_TOKENS
        return self._tokens[position]

    def nearest(self, question: str) -> list[int]:
        """Return the positions of the examples nearest to a question, the nearest first, at most :data:`MAX_NEAREST`."""
        if self.encoder is None or not self.rows:
            return []
        vectors = self.vectors()
        if question not in self._ranked:
            if len(self._ranked) >= MAX_REMEMBERED:  # a server is asked for weeks
                self._ranked.clear()
            similarity = vectors @ self.encoder.encode([question])[0]
            # Rounded, so that platforms whose float32 sums differ in the last digits choose the same examples.
            ranked = sorted(range(len(self.rows)), key=lambda n: (-round(float(similarity[n]), 6), n))
            self._ranked[question] = ranked[:MAX_NEAREST]
        return self._ranked[question]

    def vectors(self) -> np.ndarray:
        """Return the vectors of the examples' questions [rows, dimensions]; ValueError without an encoder."""
        if self._vectors is None:
            if self.encoder is None:
                raise ValueError("a pool without an encoder has no vectors")
            self._vectors = self.encoder.encode([e.question for e in self.rows])
        return self._vectors

    @property
    def digest(self) -> str:
        """SHA-256 over the examples."""
        return sha256_text(repr([(e.question, e.reply) for e in self.rows]))


class NearestExamples:
    """Chooses the examples of a pool whose questions are nearest to a question by the embedder."""

    def __init__(self, pool: ExamplePool, setting: NearestSetting) -> None:
        """Take the pool, which must have an encoder unless it is empty."""
        self._pool = pool
        self._setting = setting

    def __call__(self, question: Question) -> tuple[Example, ...]:
        """Return the examples for one question."""
        chosen: list[int] = []
        left = self._setting.max_tokens
        for position in self._pool.nearest(question.question)[: self._setting.count]:
            if left is not None:
                left -= self._pool.tokens(position)
                if left < 0:
                    break
            chosen.append(position)
        ordered = reversed(chosen) if self._setting.nearest_last else chosen
        return tuple(self._pool.rows[position] for position in ordered)


def prompt_candidates(
    plan: Plan,
    examples: Sequence[Example],
    count: int,
    layouts: Sequence[Layout],
    pool: ExamplePool | None = None,
    limits: ShotLimits | None = None,
    with_passages: Sequence[Example] = (),
) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try, the default first and the others in the order in which they deserve a try.

    Banks have a rank, and so have layouts (twice as much); those of the lower sum come first. Equal prompts are listed once.

    Args:
        plan: the run's plan.
        examples: the examples to draw from; plain texts are left out.
        count: examples in a bank; 0 for an arm that shows none, whose layout alone varies.
        layouts: as :func:`candidate_layouts` returns them.
        pool: the examples with their lengths, for many and nearest ones; None tries neither.
        limits: the most tokens of examples; None tries neither many nor nearest ones.
        with_passages: one or two examples whose questions hold their passages, for an arm that retrieves.
    """
    if not count:
        plain = [PromptCandidate(o.label or PLAN_INSTRUCTIONS, o.system, o.context) for o in layouts]
        retrieves = len({o.context for o in layouts}) > 1
        short = [o for o in layouts if o.label == SHORT and pool and retrieves]
        one = choose_shots([row for row in examples if not row.raw], 1, plan.seed)
        return (*plain, *(PromptCandidate(f"{SHORT}, one example", o.system, o.context, one) for o in short))
    usable = [row for row in examples if not row.raw]
    banks = _banks(plan, usable, count, pool, limits, with_passages)
    grid = sorted(
        (bank_rank + _LAYOUT_RANK * rank, rank, bank_rank)
        for bank_rank in range(len(banks))
        for rank in range(len(layouts))
    )
    candidates: dict[Any, PromptCandidate] = {}
    for _, rank, bank_rank in grid:
        layout = layouts[rank]
        name, shots, nearest = banks[bank_rank]
        full_name = ", ".join(filter(None, (name, layout.label)))
        key = (layout.system, layout.context, tuple((shot.question, shot.reply) for shot in shots), nearest)
        candidates.setdefault(key, PromptCandidate(full_name, layout.system, layout.context, shots, nearest))
    return tuple(candidates.values())


Bank = tuple[str, tuple[Example, ...], NearestSetting | None]
"""A name, examples that are always shown, and how further ones are chosen for each question."""


def _banks(
    plan: Plan,
    usable: Sequence[Example],
    count: int,
    pool: ExamplePool | None,
    limits: ShotLimits | None,
    with_passages: Sequence[Example],
) -> list[Bank]:
    """Return the banks of examples, the fixed one first, then those that help most often with replies of this kind."""
    fixed = choose_shots(usable, count, plan.seed)
    used = {shot.meta.get("doc_id") for shot in fixed} - {None}
    rest = [row for row in usable if row not in fixed and row.meta.get("doc_id") not in used]
    plain = [row for row in rest if not row.refuses]
    varied: list[Bank] = [
        (name, shots, None)
        for name, shots in (
            ("others", choose_shots(rest, count, plan.seed + 1)),
            ("reversed", fixed[::-1]),
            ("no refusal", choose_shots(plain, count, plan.seed + 2)),
        )
        if len(shots) == len(fixed)
    ]
    nearest: list[Bank] = []
    many: list[Bank] = []
    if pool is not None and limits is not None:
        nearest = _nearest_banks(pool, limits.nearest, len(fixed))
        shots = many_shots(pool, limits.fixed, plan.seed)
        many = [(f"many ({len(shots)})", shots, None)] if len(shots) > len(fixed) else []
    own_form: list[Bank] = []
    if with_passages:
        number = len(with_passages)
        own_form = [(f"{number} with passages", tuple(with_passages), None)]
        own_form.append((f"fixed and {number} with passages", (*fixed, *with_passages), None))
    default: Bank = (FIXED_BANK, fixed, None)
    if _closed_form(plan, usable):
        return [default, *own_form[:1], *nearest[:1], *many, *nearest[1:], *own_form[1:], *varied]
    return [default, *own_form[:1], *nearest[:1], *many, *varied, *own_form[1:], *nearest[1:]]


def _nearest_banks(pool: ExamplePool, max_tokens: int, fixed: int) -> list[Bank]:
    """Return the banks of nearest examples that fit: each number, the largest that fits, and one in the other order."""
    if pool.encoder is None or not pool.rows:
        return []
    lengths = sorted(map(pool.tokens, range(len(pool.rows))))
    most = min(MAX_NEAREST, len(lengths), max_tokens // lengths[len(lengths) // 2])
    counts = [count for count in NEAREST_COUNTS if count <= most]
    if most > max(counts, default=0) and (not counts or most >= 1.5 * max(counts)):
        counts.insert(min(2, len(counts)), most)
    banks: list[Bank] = [
        (f"nearest {n}", (), NearestSetting(n, True, max_tokens)) for n in counts if n >= min(2, fixed)
    ]
    if banks and banks[0][2]:
        first = banks[0][2].count
        banks.append((f"nearest {first}, nearest first", (), NearestSetting(first, False, max_tokens)))
    return banks


def many_shots(pool: ExamplePool, max_tokens: int, seed: int) -> tuple[Example, ...]:
    """Return as many examples as have ``max_tokens`` together, of every label or document in turn.

    Where not even one example of each label fits in the order of the seed, the shortest of each are taken first.
    """
    rows = pool.rows
    by_label = bool(labels_of([row.reply for row in rows]))
    groups: dict[Any, list[int]] = {}
    for position in sorted(
        range(len(rows)), key=lambda n: sha256_text(f"{seed}\0{rows[n].question}\0{rows[n].reply}")
    ):
        row = rows[position]
        groups.setdefault(row.reply.strip() if by_label else row.meta.get("doc_id", position), []).append(
            position
        )
    if by_label and sum(pool.tokens(group[0]) for group in groups.values()) > max_tokens:
        groups = {label: sorted(group, key=pool.tokens) for label, group in groups.items()}
    chosen: list[int] = []
    left = max_tokens
    for turn in range(max(map(len, groups.values()), default=0)):
        for group in groups.values():
            if turn < len(group) and pool.tokens(group[turn]) <= left:
                chosen.append(group[turn])
                left -= pool.tokens(group[turn])
    return tuple(rows[position] for position in chosen)


def _closed_form(plan: Plan, examples: Sequence[Example]) -> bool:
    """Return whether replies are labels or JSON, where what a near example replies is likely right or nearly so."""
    kinds = {check.kind for check in plan.checks}
    return bool(kinds & {"labels", "json_schema"} or labels_of([row.reply for row in examples]))


def candidate_layouts(plan: Plan, retrieval: bool, own: bool = False) -> tuple[Layout, ...]:
    """Return the layouts to try, the plan's first, labelled "".

    Args:
        plan: the run's plan.
        retrieval: whether the arm retrieves, so that instructions may stand beside its passages.
        own: whether the questions bring their own instructions, which are not varied.
    """
    system, context = plan.prompts.system, plan.prompts.context
    layouts = [Layout("", system, context)]
    lists = [] if own else _added_lists(plan)
    closed = {check.kind for check in plan.checks} & {"labels", "json_schema"}
    listed = [Layout(label, f"{system}\n\n{text}" if system else text, context) for label, text in lists]
    layouts += listed if closed else []
    if retrieval:
        if system and not own and not any(name in system for name in PLACEHOLDERS):
            before = re.sub(r"(?m)^(?=.*\{question\})", lambda _: f"{system}\n\n", context, count=1)
            layouts += [Layout("instructions last", "", f"{context}\n\n{system}")]
            layouts += [Layout("instructions before the question", "", before)]
        asked = next(line for line in context.split("\n") if "{question}" in line)
        layouts += [Layout("question first and last", system, f"{asked}\n\n{context}")]
    first = next(iter(sentences(system)), "")
    if not own and first and first != system.strip():
        layouts.insert(1, Layout(SHORT, first, context))
    return tuple(layouts if closed else [*layouts, *listed])


def _added_lists(plan: Plan) -> list[tuple[str, str]]:
    """Return lists that instructions may end with: labels or keys of JSON that they do not name, and the checks as rules."""
    system = plan.prompts.system
    lists: list[tuple[str, str]] = []
    for check in plan.checks:
        if check.kind == "labels":
            labels = [str(label) for label in check.value]
            if not _names_all(system, labels):
                listed = "\n".join(labels)
                lists.append(("labels listed", f"Reply with one of these labels and nothing else:\n{listed}"))
        if check.kind == "json_schema" and (keys := list(check.value.get("properties") or {})):
            required = [key for key in keys if key in check.value.get("required", keys)]
            others = [key for key in keys if key not in required]
            line = f"Reply with one JSON object and nothing else. Its keys: {', '.join(required or others)}"
            line += f"; where they apply also: {', '.join(others)}." if required and others else "."
            if not _names_all(system, keys):
                lists.append(("keys named", line))
    lists = [(label, text) for label, text in lists if len(text) <= MAX_LISTED_CHARACTERS]
    if rules := [rule_text(check) for check in plan.checks if check.text]:
        lists.append(("rules listed", "Rules for every reply:\n" + "\n".join(f"- {rule}" for rule in rules)))
    return lists


def _names_all(system: str, names: Sequence[str]) -> bool:
    text = system.casefold()
    return all(name.casefold() in text for name in names)


def shot_json(shot: Example) -> dict[str, Any]:
    """Return an example as it is stored with a prompt."""
    return {"question": shot.question, "reply": shot.reply, "line": shot.line}


def stored_shot(stored: dict[str, Any]) -> Example:
    """Return the example that :func:`shot_json` stored."""
    turns = (
        {"role": "user", "content": stored["question"]},
        {"role": "assistant", "content": stored["reply"]},
    )
    return Example(turns, {}, stored["line"])
