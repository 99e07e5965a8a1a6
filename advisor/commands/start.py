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
    from advisor.workflows.plan import PlanRequest, make_plan

    plan = make_plan(PlanRequest())
    if plan is None:
        return
    from advisor.wizard.prompter import confirm

    if confirm(f"Run {plan} now?"):
        from advisor.workflows.run import execute_plan

        execute_plan(plan, None, False, False, False, None, False, False)
