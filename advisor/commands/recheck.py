"""`tunewise recheck`: a finished run measured again after something changed."""

from __future__ import annotations

from advisor.flags.recheck import RecheckFlags
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: RecheckFlags) -> None:
    """Measure a finished run again after something has changed.

    Documents, prompt, examples, model or prices: only what the change affects is asked again, on the run's own
    questions, and compared with the old answers. The run is not changed. What was answered before an interruption is
    kept. Exit code 5 where it became clearly worse.
    """
    from advisor.workflows.recheck import print_ci_workflow, recheck_run

    if flags.workflow:
        print_ci_workflow(flags)
    else:
        recheck_run(flags)
