"""`tunewise` alone: the wizard on a terminal, then the offer to run the plan; elsewhere the help."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import typer


def start(context: typer.Context) -> None:
    """Ask, recommend, write the plan and offer to run it; without a terminal print the help and exit 2."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        with redirect_stdout(sys.stderr):
            print(context.get_help())
        raise SystemExit(2)
    from advisor.flags.plan import PlanRequest
    from advisor.wizard.prompter import confirm, offer_saved_answers
    from advisor.workflows.plan import make_plan

    plan = make_plan(PlanRequest(answers=offer_saved_answers()))
    if plan is None:
        return
    from advisor.flags.run import RunFlags
    from advisor.workflows.run import estimated_duration, execute_plan

    if confirm(f"Run {plan} now? It takes about {estimated_duration(plan)} here."):
        execute_plan(RunFlags(plan=plan))
