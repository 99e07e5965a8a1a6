"""How many of its examples an arm trains on, and how many of those have the passage that supports their reply.

An arm that lost most of its rows was not trained as planned, and its scores say nothing about its method. A
:class:`RowAccount` is counted before training and read again from a finished run (:func:`recorded_accounts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.text.words import count_noun
from rag.types import Chunk
from runners.arms.gold_passages import GoldPassages
from runners.arms.raft import RetrievalRows
from runners.data.examples import Example, RowPlace, row_place
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, TrainStep
from runners.report.records import TrainingRows

MIN_TRAINED_SHARE = 2 / 3
"""Share of an arm's examples that must be trained on, and in a hybrid have a passage; below it the user is asked."""
ROWS_SHOWN = 3
"""Rows and documents named in a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAccount:
    """The rows of one trained arm."""

    arm: str
    of: int
    """Examples that the plan gives it."""
    rows: int
    """Those that are trained on."""
    with_passage: int | None = None
    """Of a hybrid: examples with a gold passage, and refusals, which need none; None for other arms."""
    by_document: int = 0
    """Of those, examples whose passage is only known by the document that the row names."""
    causes: tuple[str, ...] = ()
    """Why rows are not trained on, a clause each."""
    places: tuple[RowPlace, ...] = ()
    """Rows that are lost, or have no passage."""
    unknown_documents: tuple[str, ...] = ()
    """Document ids of rows that the documents do not have."""
    acceptable: bool = True
    """Whether the arm can be trained on the rows that are left; too many rows over max_tokens are refused in any case."""

    @property
    def lost(self) -> bool:
        """Whether so many rows are not trained on that the arm is not the one that was planned."""
        return self.rows < MIN_TRAINED_SHARE * self.of

    @property
    def unsupported(self) -> int:
        """Examples of a hybrid without a gold passage."""
        return 0 if self.with_passage is None else self.of - self.with_passage

    @property
    def short(self) -> bool:
        """Whether the user is asked: too many rows are lost, or have no passage."""
        return self.lost or self.of - self.unsupported < MIN_TRAINED_SHARE * self.of

    @property
    def text(self) -> str:
        """How many rows there are, of how many, and why the others are missing or have no passage."""
        parts = [f"{self.arm} trains on {self.rows:,} of {count_noun(self.of, 'example')}"]
        parts += self.causes
        if self.with_passage is not None:
            document = f", {self.by_document:,} of them only by the document that the row names" * bool(
                self.by_document
            )
            parts.append(f"{self.with_passage:,} have their passage or are refusals{document}")
        if self.unsupported:
            parts.append(
                f"for {self.unsupported:,} no passage supports the reply, they keep those that the search returns"
            )
        if self.unknown_documents:
            parts.append(
                f"{len(self.unknown_documents):,} document ids of rows are not in the documents "
                f"({_first(self.unknown_documents)})"
            )
        places = f" (rows: {_first(self.places)})" if self.places else ""
        return "; ".join(parts) + places

    @property
    def summary(self) -> TrainingRows:
        """The account as a report has it."""
        return TrainingRows(
            arm=self.arm,
            rows=self.rows,
            of=self.of,
            with_passage=self.with_passage,
            by_document=self.by_document,
            unknown_documents=self.unknown_documents[:ROWS_SHOWN],
            planned=not self.lost,
            text=self.text,
        )


def account_of_retrieval(arm: str, prepared: RetrievalRows) -> RowAccount:
    """Return the account of the retrieval-aware rows of an arm."""
    return RowAccount(
        arm=arm,
        of=len(prepared.rows),
        rows=len(prepared.rows),
        with_passage=len(prepared.rows) - len(prepared.unsupported),
        by_document=prepared.by_document,
        causes=(),
        places=prepared.unsupported,
        unknown_documents=prepared.unknown_documents,
    )


def account_of_passages(arm: str, chunks: Sequence[Chunk], examples: Sequence[Example]) -> RowAccount:
    """Return the account of a hybrid before there is an index: gold passages among these, without a search."""
    finder = GoldPassages(chunks)
    places: list[RowPlace] = []
    unknown: dict[str, None] = {}
    by_document = 0
    for example in examples:
        if example.refuses:
            continue
        gold = finder.gold_of(example)
        unknown |= dict.fromkeys(gold.unknown)
        by_document += gold.by == "document"
        if not gold.passages:
            places.append(row_place(example))
    count = len(examples)
    return RowAccount(
        arm=arm,
        of=count,
        rows=count,
        with_passage=count - len(places),
        by_document=by_document,
        causes=(),
        places=tuple(places),
        unknown_documents=tuple(unknown),
    )


def recorded_accounts(plan: Plan, events: Sequence[Mapping[str, Any]]) -> dict[str, RowAccount]:
    """Return the account of every arm that a run trained, by the arm that answers, from the run's log.

    An arm that answers with the weights of another, or whose weights go on from those of another, is not trained as
    planned when the other is not: of these accounts it has the one with the fewest rows.
    """
    trained = {
        step.arm: account
        for step in plan.steps
        if isinstance(step, TrainStep) and (account := _recorded(step.arm, events))
    }
    accounts: dict[str, RowAccount] = {}
    for step in plan.steps:
        if not isinstance(step, EvaluateStep):
            continue
        own = _fitted_account(step, events)
        if step.route:  # as planned where both of its arms are
            parts = (step.route.first, step.route.otherwise)
            chain = [accounts[name] for name in parts if name in accounts]
        else:
            chain = [own] if own else [trained[name] for name in _weights_of(plan, step) if name in trained]
        if chain:
            accounts[step.arm] = min(chain, key=lambda account: account.rows / max(1, account.of))
    return accounts


def _weights_of(plan: Plan, step: EvaluateStep) -> list[str]:
    """Return the trained arms whose weights an arm answers with: its own, and those that these go on from."""
    names: list[str] = []
    name = step.weights
    while name and name not in names:
        names.append(name)
        name = plan.train_step(name).start_from
    return names


def _recorded(arm: str, events: Sequence[Mapping[str, Any]]) -> RowAccount | None:
    """Return what the last training of an arm recorded; None when it was not trained."""
    done = [e for e in events if e.get("event") == "step.done" and e.get("step") == f"train:{arm}"]
    result = done[-1].get("result") or {} if done else {}
    trained = (result.get("trained") or [{}])[-1]
    if "rows" not in trained:
        return None
    left_out = int(trained.get("left_out") or 0)
    causes = (f"{left_out:,} are longer than max_tokens",) if left_out else ()
    account = result.get("account") or {}
    if not account:
        return RowAccount(arm=arm, of=trained["rows"] + left_out, rows=trained["rows"], causes=causes)
    of = int(account["examples"])
    return RowAccount(
        arm=arm,
        of=of,
        rows=max(0, of - left_out),
        with_passage=of - int(account["unsupported"]),
        by_document=int(account["by_document"]),
        causes=causes,
    )


def replies_account(arm: str, of: int, left_out: int, places: tuple[RowPlace, ...] = ()) -> RowAccount:
    """Return the account of an arm of nearest replies: rows without a question or a reply cannot be given."""
    causes = (f"{left_out:,} have no question or no reply",) if left_out else ()
    return RowAccount(arm=arm, of=of, rows=of - left_out, causes=causes, places=places)


def _fitted_account(step: EvaluateStep, events: Sequence[Mapping[str, Any]]) -> RowAccount | None:
    """Return what the last fit of an arm without a language model recorded; None for others, and before it."""
    arm = step.arm
    if step.nearest_reply:
        fitted = [e for e in events if e.get("event") == "replies.fitted" and e.get("arm") == arm]
        return replies_account(arm, fitted[-1]["of"], fitted[-1]["left_out"]) if fitted else None
    done = [e for e in events if e.get("event") == "classifier.trained" and e.get("arm") == arm]
    if not step.classifier or not done:
        return None
    left_out = int(done[-1]["left_out"])
    causes = (f"{left_out:,} have a reply that is none of the plan's labels",) if left_out else ()
    return RowAccount(arm=arm, of=done[-1]["rows"] + left_out, rows=done[-1]["rows"], causes=causes)


def _first(values: Sequence[RowPlace]) -> str:
    """Return the first values in words."""
    more = ", ..." if len(values) > ROWS_SHOWN else ""
    return ", ".join(f"line {v}" if isinstance(v, int) else v for v in values[:ROWS_SHOWN]) + more
