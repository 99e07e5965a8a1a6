"""What `tunewise probe` takes, writes and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from advisor.output import command_line, emit_result, note
from advisor.probe.answers_from_probe import overridden_answers
from advisor.probe.probe import MAX_PROBE_QUESTIONS, MAX_PROBE_TOKENS, ProbeOutcome, probe_model
from advisor.questionnaire.answers import PERSON_SOURCES, Answers, format_answer, names_a_path
from rag.files import write_bytes, write_text
from runners.trial.base_probe import RETRIEVED

PROBE_OUT = Path("probe.yaml")
PROBE_PATH_KEYS = ("documents", "examples", "questions", "prompt", "model")
_NAMES = {
    "closed-book": "the question alone",
    "open-book": "with the passage that holds the answer",
    "retrieved": "with what the index returns",
    "style": "in the house style, by prompting alone",
    "stop_rule": "real examples that pass (stop at 8 of 10)",
    "passes": "everything that passes by prompting alone",
}


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What the command line gave."""

    answers: Path | None = None
    sets: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    out: Path = PROBE_OUT
    limit: int = MAX_PROBE_QUESTIONS
    as_json: bool = False


def run_probe(wanted: ProbeRequest) -> None:
    """Probe, print what was found and what it changes, and write the answers file."""
    from advisor.questionnaire.gather import flag_answers, refuse_unknown_model, with_answers_of
    from advisor.settings import with_settings_answers
    from advisor.terminal import resume_hint

    answers = with_settings_answers(
        with_answers_of(flag_answers(wanted.sets, **wanted.flags), wanted.answers)
    )
    refuse_unknown_model(answers)
    with resume_hint(command_line(*sys.argv[1:]), "answers so far"):
        found = probe_with_progress(answers, wanted.out, wanted.limit, quiet=wanted.as_json)
    kept = write_probe_answers(found, wanted.out)
    if wanted.as_json:
        emit_result(found.to_json())
    else:
        show_probe(found)
    if kept:
        note(f"the file that was there is kept as {kept}")
    note(f"wrote {wanted.out}; plan with it: {command_line('plan', '--answers', wanted.out)}")


def probe_with_progress(
    answers: Answers, out: Path = PROBE_OUT, limit: int = MAX_PROBE_QUESTIONS, quiet: bool = False
) -> ProbeOutcome:
    """Probe with progress on stderr; the work lies beside ``out`` until it is done."""
    from advisor.display.progress import watch_progress

    with watch_progress(quiet) as watcher:
        return probe_model(answers, out.with_name(f".{out.stem}.work"), limit, watcher)


def write_probe_answers(found: ProbeOutcome, out: Path) -> Path | None:
    """Write the answers given and those the probe settled as an answers file; return where an older one is kept."""
    body: dict[str, Any] = {}
    for key, answer in found.answers.items():
        if answer.source in PERSON_SOURCES:
            body[key] = _placed(key, answer.value, out)
    for key, answer in found.answers.layers.get("probed", {}).items():
        if key not in body:
            body[key] = {"value": answer.value, "source": "probed", "note": answer.note}
    kept = out.with_suffix(out.suffix + ".bak") if out.is_file() else None
    if kept:
        write_bytes(kept, out.read_bytes())
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    write_text(
        out,
        f"# Answers with what a probe settled, for: {command_line('plan', '--answers', out.name)}\n{text}",
    )
    return kept


def show_probe(found: ProbeOutcome) -> None:
    """Print shares, what they say, what was settled, and what that changes."""
    from advisor.display import console

    screen = console.console()
    proxy = f": a stand-in, because {found.proxy}" if found.proxy else ""
    screen.print(f"asked {found.model}{proxy}", soft_wrap=True, markup=False)
    bound = " (an upper bound)" if found.asked.portion else ""
    rows = [
        (name.replace("_", " "), share.short(), _NAMES[name] + (bound if name == RETRIEVED else ""))
        for name, share in found.found.shares.items()
    ]
    screen.print(console.table(("", "right, 95 %", "how it was asked"), rows))
    for line in (*left_out_lines(found), *found.found.reading):
        screen.print(f"  {line}", soft_wrap=True, markup=False)
    for line in settled_lines(found):
        screen.print(f"  {line}", soft_wrap=True, markup=False)
    screen.print()
    screen.print(console.render_difference(found.before, found.after, "after the probe"))
    screen.print(f"{found.seconds:.0f} s", highlight=False)


def left_out_lines(found: ProbeOutcome) -> list[str]:
    """Say what was not asked or cut, with counts."""
    said = [f"{found.asked.questions} dev questions; the test questions were not read"]
    if found.asked.ungrounded:
        said.append(
            f"{found.asked.ungrounded} of them were asked from memory only: no passage was found that holds their answer"
        )
    if found.asked.portion:
        said.append(found.asked.portion.text)
    if found.asked.cut:
        said.append(
            f"{found.asked.cut} answers were cut at {MAX_PROBE_TOKENS} tokens, below the plan's own limit: their style is not "
            "judged, and what they would have said later is not counted"
        )
    return said


def settled_lines(found: ProbeOutcome) -> list[str]:
    """Say which answers the probe settled, which a person's answer overrides, and that a stand-in settles none."""
    if found.proxy:
        hints = ", ".join(f"{key} = {format_answer(value)}" for key, value in found.found.settled.items())
        return [
            f"a hint only, nothing is set ({hints or 'and no interval decides anything'}): another model was asked"
        ]
    mine = overridden_answers(found.answers)
    said = [
        f"sets {key} = {format_answer(value)}: {found.found.because[key]}"
        for key, value in found.found.settled.items()
        if key not in mine
    ]
    said += [
        f"you said {key} = {format_answer(yours.value)}, the probe says {format_answer(theirs.value)}: yours counts"
        for key, (yours, theirs) in mine.items()
    ]
    return said or ["sets nothing: every interval holds its threshold, or you have answered already"]


def _placed(key: str, value: Any, out: Path) -> Any:
    """Return a path as it is found from the answers file's folder; any other value as it is."""
    if key not in PROBE_PATH_KEYS or not isinstance(value, str) or not names_a_path(value):
        return value
    path = Path(value).expanduser()
    if path.is_absolute() or out.parent.resolve() == Path.cwd():
        return str(path)
    full = path.resolve()
    return str(full) if key == "model" else os.path.relpath(full, out.parent.resolve())
