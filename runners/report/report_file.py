"""report.json: the record of a report written as JSON and read again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import check_schema, older_file, parse_json
from runners.report.json_records import from_json, to_json
from runners.report.trial_report import EvaluationReport, ScoredReport, TrialReport
from runners.run_folder import REPORT


def report_json(report: ScoredReport) -> dict[str, Any]:
    """Return a report as report.json and ``report --json`` have it, an evaluation as eval.json and ``eval --json``."""
    body = {"schema": 1, **to_json(report)}
    if isinstance(report, EvaluationReport):  # its answers are not timed
        for arm in body["arms"]:
            del arm["alone"], arm["batch"]
    return body


def read_report(run: Path) -> TrialReport | None:
    """Return a run's report, None before there is one; BadInput when it is damaged, newer or of before 0.2.0."""
    file = run / REPORT
    if not file.is_file():
        return None
    try:
        body = check_schema(parse_json(file.read_text("utf-8")), "report", file)
        if "use" not in body["verdict"]:
            raise older_file("run", run)
        return from_json(TrialReport, body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{file} is damaged: {error!r}",
            f"write it again with: tunewise run {shlex.quote(str(run))} --resume",
        ) from None
