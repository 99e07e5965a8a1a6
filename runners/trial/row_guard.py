"""Stop a run before it trains an arm on a part of its rows: lost ones, or a hybrid's without their passage.

:func:`training_accounts` counts; :func:`require_rows` raises :class:`RowsLost` for arms below
:data:`runners.arms.row_account.MIN_TRAINED_SHARE`, unless the user accepts them by flag, in the plan or earlier in the
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rag.errors import BadInput
from runners.arms import classifier
from runners.arms.row_account import RowAccount, account_of_retrieval, replies_account
from runners.data.examples import row_place
from runners.plan.schema import Step
from runners.plan.steps import EvaluateStep, TrainStep
from runners.preflight import run_checks
from runners.report.json_records import to_json
from runners.run_folder import INDEX
from runners.runs.opened import OpenRun
from runners.runs.retrieval import REFUSAL_FILE
from runners.selective.replies import reply_rows
from runners.tokenization.chat_template import ChatTokenizer
from runners.trial import step_runner

LOSING_CODES = ("PF002", "PF003", "PF007")
"""Checks that name rows which are not trained on."""
ACCEPTED = "rows.accepted"
"""Event of a run whose user accepted an arm's loss of rows."""


class RowsLost(BadInput):
    """Arms would be trained on too few of their rows, or rows of a hybrid have no passage."""

    acceptable = True
    """Whether the run can go on when the user accepts it."""


def training_accounts(context: OpenRun, steps: Sequence[Step]) -> Iterator[RowAccount]:
    """Yield the account of every step that learns from rows, with weights or without, if it can be counted already.

    Retrieval-aware rows cannot be counted before the index is built.
    """
    indexed = (context.folder.path / INDEX).exists() and (context.folder.path / REFUSAL_FILE).exists()
    for step in steps:
        if isinstance(step, TrainStep) and (step.rows == "plain" or indexed):
            yield _account_of_training(context, step)
        elif isinstance(step, EvaluateStep) and step.classifier:
            yield _account_of_classifier(context, step)
        elif isinstance(step, EvaluateStep) and step.nearest_reply:
            yield _account_of_replies(context, step)


def require_rows(context: OpenRun, steps: Sequence[Step], accepted: bool) -> tuple[str, ...]:
    """Report the rows of these steps' arms, and stop where too few are left.

    Steps whose weights exist already are not counted again.

    Args:
        context: the run.
        steps: steps of the plan, of any kind.
        accepted: whether the user accepts a loss of rows.

    Returns:
        The arms that were counted.

    Raises:
        RowsLost: naming the arm, the reason and three rows.
    """
    pending = [step for step in steps if not _is_trained(context, step)]
    if not any(
        isinstance(step, TrainStep) or (isinstance(step, EvaluateStep) and step.without_model)
        for step in pending
    ):
        return ()
    earlier = {event.get("arm") for event in context.folder.events() if event.get("event") == ACCEPTED}
    accepted = accepted or context.plan.data.lost_rows == "accept"
    accounts = list(training_accounts(context, pending))
    short = [account for account in accounts if account.short and account.arm not in earlier]
    for account in accounts:
        if account.with_passage is not None or account.rows < account.of:
            context.emit({"event": "rows.counted", "reason": account.text, **to_json(account.summary)})
        if account in short and accepted:
            context.emit({"event": ACCEPTED, "arm": account.arm, "reason": account.text})
    refused = [account for account in short if not (accepted and account.acceptable)]
    if refused:
        raise rows_lost(refused)
    return tuple(account.arm for account in accounts)


def rows_lost(short: Sequence[RowAccount]) -> RowsLost:
    """Return the problem of arms with too few rows: the reason, three rows, and what to do."""
    arms = ", ".join(account.arm for account in short)
    texts = "; ".join(account.text for account in short)
    problem = RowsLost(f"under two thirds of the rows to train {arms} as planned: {texts}", _advice(short))
    problem.acceptable = all(account.acceptable for account in short)
    return problem


def _advice(short: Sequence[RowAccount]) -> str:
    """Return what to do about lost rows."""
    ways = []
    if any(account.unsupported for account in short):
        ways.append("name each row's document in meta.doc_id, or add the documents that contain the replies")
    if any(account.lost for account in short):
        ways.append("correct the rows, or raise max_tokens")
    if all(account.acceptable for account in short):
        ways.append("to train all the same: --accept-lost-rows, or lost_rows: accept under data in the plan")
    return "; ".join(ways)


def _is_trained(context: OpenRun, step: Step) -> bool:
    """Return whether the weights of a step exist."""
    return isinstance(step, TrainStep) and all(
        context.folder.adapter(step.arm, seed).exists() for seed in step.seeds
    )


def _account_of_training(context: OpenRun, step: TrainStep) -> RowAccount:
    """Return the account of a train step: its rows as they are made for its first seed, and what the tokenizer refuses."""
    seed = step.seeds[0]
    if step.rows == "retrieval":
        prepared = step_runner.prepare_retrieval_rows(context, step, seed)
        rows, account = prepared.rows, account_of_retrieval(step.arm, prepared)
    else:
        rows, _ = step_runner.training_rows_of(context, step, seed)
        account = RowAccount(arm=step.arm, of=len(rows), rows=len(rows))
    # Reasoning changes the prompts, and with them which rows are too long.
    config = step.config(seed).replace(thinking=context.plan.thinking.enabled)
    chat = ChatTokenizer(context.models.local_base(step).folder, config.thinking)
    _, report = run_checks.inspect_rows(rows, chat, config)
    if not report.left_out:
        return account
    losing = [
        check for check in report.checks if check.code in LOSING_CODES and check.level != "ok" and check.rows
    ]
    return RowAccount(
        arm=step.arm,
        of=account.of,
        rows=account.rows - report.left_out,
        with_passage=account.with_passage,
        by_document=account.by_document,
        causes=tuple(check.text for check in losing),
        places=(*(row for check in losing for row in check.rows), *account.places),
        unknown_documents=account.unknown_documents,
        acceptable=not report.stops,
    )


def _account_of_classifier(context: OpenRun, step: EvaluateStep) -> RowAccount:
    """Return the account of a classifier, whose rows must have a label of the plan."""
    labelled, left_out = classifier.labelled_texts(context.plan, context.examples)
    if not left_out:
        return RowAccount(arm=step.arm, of=len(labelled), rows=len(labelled))
    known = {text for text, _ in labelled}
    places = tuple(row_place(e) for e in context.examples if e.question not in known)
    cause = f"{left_out:,} have a reply that is none of the plan's labels"
    return RowAccount(
        arm=step.arm, of=len(labelled) + left_out, rows=len(labelled), causes=(cause,), places=places
    )


def _account_of_replies(context: OpenRun, step: EvaluateStep) -> RowAccount:
    """Return the account of an arm of nearest replies, whose rows must have a question and a reply."""
    rows = reply_rows(context.examples, context.plan.data.documents)
    places = tuple(
        row_place(e) for e in context.examples if e.raw or not (e.question.strip() and e.reply.strip())
    )
    return replies_account(step.arm, rows.of, rows.left_out, places)
