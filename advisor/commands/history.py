"""`tunewise history`: how often the advice was right here, and how far estimates were off."""

from __future__ import annotations

import typer

from advisor.flags import options


def command(
    clear: bool = typer.Option(False, "--clear", help="Remove the history."),
    as_json: options.ResultJson = False,
) -> None:
    """Compare what was predicted with what your runs measured.

    Every finished run on this machine adds a line to a file of yours, which is sent nowhere. TUNEWISE_HISTORY names
    another file; with an empty name nothing is recorded.
    """
    from advisor import history
    from advisor.output import emit_result
    from advisor.workflows.history import history_summary, show_history

    if clear:
        count = history.clear_history()
        if as_json:
            emit_result({"schema": 1, "removed": count})
        else:
            print(f"removed {count} run{'' if count == 1 else 's'}")
        return
    summary = history_summary(history.read_history())
    if as_json:
        emit_result(summary)
    else:
        show_history(summary)
