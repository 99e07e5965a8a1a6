"""What ``tunewise probe`` reads from the command line, writes to the answers file, and prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from advisor.display import console
from advisor.display.progress import watch_progress
from advisor.flags.plan import ProbeRequest, answers_of
from advisor.output import command_line, emit_result, note, print_plain
from advisor.probe.answers_from_probe import overridden_answers
from advisor.probe.offer import MAX_PROBE_QUESTIONS, MAX_PROBE_TOKENS
from advisor.probe.probe import ProbeOutcome, probe_model
from advisor.questionnaire.answers import PERSON_SOURCES, Answers, format_answer, names_a_path
from advisor.questionnaire.answers_files import probe_facts_entry
from advisor.questionnaire.gather import flag_answers, refuse_unknown_model, with_answers_of
from advisor.questionnaire.probe_facts import PROBE_FACTS
from advisor.settings import with_settings_answers
from advisor.terminal import resume_hint
from rag.files import write_bytes, write_text
from rag.text.words import count_noun
from runners.trial.base_probe import RETRIEVED

PROBE_OUT = Path("probe.yaml")
PROBE_PATH_KEYS = ("documents", "examples", "questions", "prompt", "model")
"""Answers that may be paths, which are written relative to the answers file."""
_MODE_TEXTS = {
    "closed-book": "right from memory (the question alone)",
    "open-book": "right with the right passage in the prompt",
    "retrieved": "right with the passages that the search finds",
    "style": "in your style, with a prompt alone",
    "stop_rule": "of ten real examples good with a prompt alone (if 8 are, stop there)",
    "passes": "of all answers good with a prompt alone",
    "few_shot": "the same with examples in the prompt",
    "classifier": "labels of your examples right by a classifier (cross-validated)",
}


def run_probe(request: ProbeRequest) -> None:
    """Probe, print what was measured and what it changes, and write the answers file."""
    answers = with_settings_answers(
        with_answers_of(flag_answers(request.sets or (), **answers_of(request)), request.answers)
    )
    refuse_unknown_model(answers)
    with resume_hint(command_line(*sys.argv[1:]), "answers so far"):
        outcome = probe_with_progress(answers, request.out, request.limit, quiet=request.as_json)
    backup = write_probe_answers(outcome, request.out)
    if request.as_json:
        emit_result(outcome.to_json())
    else:
        show_probe(outcome)
    if backup:
        note(f"the file that was there is saved as {backup}")
    note(f"wrote {request.out}; plan with it: {command_line('plan', '--answers', request.out)}")


def probe_with_progress(
    answers: Answers, out: Path = PROBE_OUT, limit: int = MAX_PROBE_QUESTIONS, quiet: bool = False
) -> ProbeOutcome:
    """Probe with progress on stderr; the work folder is beside ``out`` until the probe is done."""
    with watch_progress(quiet) as watcher:
        return probe_model(answers, out.with_name(f".{out.stem}.work"), limit, watcher)


def write_probe_answers(outcome: ProbeOutcome, out: Path) -> Path | None:
    """Write a person's answers and those the probe settled as an answers file.

    Returns:
        The path of the backup of an answers file that was there before, None if there was none.
    """
    body: dict[str, Any] = {}
    for key, answer in outcome.answers.items():
        if answer.source in PERSON_SOURCES:
            body[key] = _portable_path(key, answer.value, out)
    for key, answer in outcome.answers.layers.get("probed", {}).items():
        if key not in body and key != PROBE_FACTS:
            body[key] = {"value": answer.value, "source": "probed", "note": answer.note}
    body |= probe_facts_entry(outcome.answers)
    backup = out.with_suffix(out.suffix + ".bak") if out.is_file() else None
    if backup:
        write_bytes(backup, out.read_bytes())
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    write_text(
        out,
        f"# Answers with what a probe measured, for: {command_line('plan', '--answers', out.name)}\n{text}",
    )
    return backup


def show_probe(outcome: ProbeOutcome, with_change: bool = True) -> None:
    """Print the shares, their interpretation, what was settled, and what that changes unless it is shown elsewhere."""
    screen = console.console()
    proxy = f" in place of the plan's model: {outcome.proxy}" if outcome.proxy else ""
    print_plain(screen, f"asked {outcome.model}{proxy}")
    upper_bound = " (an upper bound)" if outcome.replies.portion else ""
    rows = [
        (
            share.short(),
            _MODE_TEXTS[name] + (upper_bound if name == RETRIEVED else ""),
        )
        for name, share in outcome.diagnosis.shares.items()
    ]
    screen.print(console.table(("share, 95 % interval", "of what"), rows))
    for line in (*left_out_lines(outcome), *outcome.diagnosis.reading):
        print_plain(screen, f"  {line}")
    for line in settled_lines(outcome):
        print_plain(screen, f"  {line}")
    if with_change:
        screen.print()
        screen.print(console.render_difference(outcome.before, outcome.after, "after the probe"))
    screen.print(f"{outcome.seconds:.0f} s", highlight=False)


def left_out_lines(outcome: ProbeOutcome) -> list[str]:
    """Return what was not asked or was cut, with counts."""
    lines = [f"{outcome.replies.questions} dev questions; the test questions were not read"]
    if outcome.replies.ungrounded:
        lines.append(
            f"{outcome.replies.ungrounded} of them were asked from memory only: "
            "no passage was found that contains their answer"
        )
    if outcome.replies.portion:
        lines.append(outcome.replies.portion.text)
    if outcome.replies.cut:
        lines.append(
            f"{count_noun(outcome.replies.cut, 'answer')} cut at {MAX_PROBE_TOKENS} tokens, below the plan's own limit: "
            "without style, and only what was written until then counts"
        )
    lines += outcome.left_out
    if (rows := outcome.replies.classified) and rows.left_out:
        lines.append(
            f"{count_noun(rows.left_out, 'example')} not given to the classifier: the reply is not a label of the plan, or "
            "there were enough others"
        )
    return lines


def settled_lines(outcome: ProbeOutcome) -> list[str]:
    """Return which answers the probe settled, which a person's answer overrides, and that a proxy settles none."""
    if outcome.proxy:
        hints = ", ".join(
            f"{key} = {format_answer(value)}" for key, value in outcome.diagnosis.settled.items()
        )
        return [
            f"a hint only, no answer is set ({hints or 'nothing is clear either'}): another model was asked"
        ]
    overridden = overridden_answers(outcome.answers)
    lines = [
        f"sets {key} = {format_answer(value)}: {outcome.diagnosis.because[key]}"
        for key, value in outcome.diagnosis.settled.items()
        if key not in overridden
    ]
    lines += [
        f"you said {key} = {format_answer(own.value)}, measured was {format_answer(probed.value)}: your answer counts"
        for key, (own, probed) in overridden.items()
    ]
    return lines or ["no answer is set: nothing is clear enough, or you have answered it already"]


def _portable_path(key: str, value: Any, out: Path) -> Any:
    """Return a path as it is read from the folder of the answers file; any other value unchanged."""
    if key not in PROBE_PATH_KEYS or not isinstance(value, str) or not names_a_path(value):
        return value
    path = Path(value).expanduser()
    if path.is_absolute() or out.parent.resolve() == Path.cwd():
        return str(path)
    absolute = path.resolve()
    return str(absolute) if key == "model" else os.path.relpath(absolute, out.parent.resolve())
