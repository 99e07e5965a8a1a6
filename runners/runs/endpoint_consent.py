"""Which endpoints a run that came from a bundle may not ask yet.

A bundle's plan names hosts that its author chose. They are listed in a hidden file of the run folder, which belongs to
no manifest and to no bundle, until the user allows them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from rag.backends.consent import allowed_url
from rag.errors import BadInput, UsageProblem
from rag.files import SCHEMA, check_schema, parse_json, write_text
from runners.plan.schema import Plan
from runners.run_folder import UNCONFIRMED_ENDPOINTS


def unconfirmed_endpoints(run: Path) -> tuple[str, ...]:
    """Return the hosts that a run may not ask yet, as :func:`runners.models.endpoint.endpoint_host` writes them.

    Raises:
        BadInput: the list cannot be read; nothing is asked then.
    """
    file = run / UNCONFIRMED_ENDPOINTS
    if not file.exists():
        return ()
    try:
        listed = check_schema(parse_json(file.read_text("utf-8")), "unconfirmed endpoints", file)
        return tuple(str(host) for host in listed["hosts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} is damaged: {error!r}", "import the bundle again") from None


def set_unconfirmed(run: Path, hosts: Iterable[str]) -> None:
    """Record the hosts that a run may not ask yet; none removes the record."""
    listed = sorted(set(hosts))
    if listed:
        write_text(run / UNCONFIRMED_ENDPOINTS, json.dumps({"schema": SCHEMA, "hosts": listed}) + "\n")
    else:
        (run / UNCONFIRMED_ENDPOINTS).unlink(missing_ok=True)


def allow_endpoints(run: Path, hosts: Collection[str]) -> tuple[str, ...]:
    """Allow a run to ask some hosts, all of them where none is named; return those that are allowed now.

    Raises:
        UsageProblem: a host that the run does not list.
    """
    listed = unconfirmed_endpoints(run)
    for host in hosts:
        if host not in listed:
            waiting = ", ".join(listed) or "none"
            raise UsageProblem(f"{run} does not wait for {host} to be allowed", f"it waits for: {waiting}")
    allowed = tuple(hosts) or listed
    set_unconfirmed(run, set(listed) - set(allowed))
    return allowed


def check_endpoint_allowed(run: Path, host: str, sent: str = "questions and passages") -> None:
    """Raise BadInput when a run from a bundle has not been allowed to ask a host; ``sent`` is what goes there."""
    if host in unconfirmed_endpoints(run):
        raise BadInput(
            f"{run} came from a bundle, and its plan sends {sent} to {host}",
            f"if that is right, allow it once: tunewise runs allow {shlex.quote(str(run))} {shlex.quote(host)}",
        )


def sent_by_plan(plan: Plan) -> str:
    """Return what a plan sends to its endpoints: also files of this machine, where a model looks things up itself."""
    looked_up = any(arm.looks_up for arm in plan.arms)
    files = f", and what its model reads of the files in {plan.data.documents}," if looked_up else ""
    return f"questions and passages{files}"


def check_index_hosts(plan: Plan) -> None:
    """Raise BadInput where a plan names a database for its index at a host that the user has not allowed."""
    if plan.index is not None and plan.index.backend:
        allowed_url(plan.index.backend, f"the plan {plan.name}")
