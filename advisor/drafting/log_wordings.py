"""The questions of a log beside a drafted plan: cleaned, written as wordings.jsonl, and named by the plan."""

from __future__ import annotations

from pathlib import Path

from advisor.output import note
from advisor.questionnaire.data_stats import DataStats
from rag.errors import BadInput, UsageProblem
from rag.files import write_bytes, write_text
from runners.data.log_questions import load_log_questions, log_rows
from runners.plan.schema import Plan
from runners.synthesis.question_form import language_name

WORDINGS_FILE = "wordings.jsonl"
"""What a plan's questions of a log are written into, in the plan's folder."""


def with_log_questions(plan: Plan, source: Path, folder: Path, stats: DataStats) -> Plan:
    """Write the questions of a log into a plan's folder, say what was done with them, and return the plan that names them.

    Args:
        plan: the drafted plan.
        source: the log.
        folder: the folder that the plan is written into.
        stats: of the user's files, whose language the log's is compared with.

    Raises:
        BadInput: the log has no question in it.
        UsageProblem: the log itself has the name of the file.
    """
    log = load_log_questions(source, seed=plan.seed, language=_language(stats.facts.language))
    for line in log.notes(source):
        note(line)
    if plan.index is None:
        note("the plan searches no documents, so nothing in it depends on the wordings")
    target, content = folder / WORDINGS_FILE, log_rows(log)
    if target.exists() and target.read_bytes() != content.encode():
        if target.samefile(source):
            raise UsageProblem(
                f"--wordings {source}: the cleaned questions would replace it",
                "rename it, or write the plan elsewhere: --out",
            )
        backup = target.with_name(f"{WORDINGS_FILE}.bak")
        write_bytes(backup, target.read_bytes())
        note(f"the {WORDINGS_FILE} that was there is saved as {backup}")
    write_text(target, content)
    data = plan.data.model_copy(update={"wordings": Path(WORDINGS_FILE)})
    return plan.model_copy(update={"data": data})


def _language(code: str | None) -> str:
    """Return the name of a language by its code; "" for one without a name, of which no text is surely in another."""
    try:
        return language_name(code) if code else ""
    except BadInput:
        return ""
