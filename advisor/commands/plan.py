"""`tunewise plan`: profile the situation, recommend a method, write the plan."""

from __future__ import annotations

from advisor.flags.plan import PlanRequest
from advisor.flags.records import takes_flags


@takes_flags
def command(flags: PlanRequest) -> None:
    """Recommend a method for your task, and write a plan to test it.

    On a terminal it asks what is unknown. Elsewhere, or with --yes, unknown stays unknown, and is named where it matters.
    Where a probe would decide about the advice and your files allow it, it offers to measure first; --probe does so at once.
    With --models several models are advised on, and the few arms that are worth it within --minutes and --usd are planned.
    """
    from advisor.workflows.plan import make_plan
    from advisor.workflows.plan_lists import print_profiles, print_schema
    from runners.models.hub import allow_hub
    from runners.models.licenses import accept_licenses

    accept_licenses(flags.accept_license or ())
    if flags.allow_hub:
        allow_hub()
    if flags.schema:
        print_schema()
    elif flags.profiles:
        print_profiles(flags.as_json)
    else:
        make_plan(flags)
