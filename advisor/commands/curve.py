"""`tunewise curve`: how many examples are enough."""

from __future__ import annotations

from advisor.flags.curve import CurveRequest
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: CurveRequest) -> None:
    """Find out whether more examples would help.

    It trains on 1/8, 1/4, 1/2 and all examples (the largest is taken from a finished run), and says what more would bring.
    """
    from advisor.output import emit_result

    if flags.cases is not None:
        from benchmarks.scorers.curve_cases import score_cases_file, show_case_scores

        data = score_cases_file(flags.cases, [str(flags.target)] if flags.target else [])
        emit_result(data) if flags.as_json else show_case_scores(data)
        return
    from advisor.workflows.curve import measure, show_curve

    data = measure(flags)
    emit_result(data) if flags.as_json else show_curve(data)
