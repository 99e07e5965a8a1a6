"""Who agrees that `run` or `train` starts, and to what: minutes, money, disk and folder.

A client that can ask its user (elicitation) shows these facts, and only a person's yes starts the work. For other clients
nothing starts, because whatever the server returned to the agent, the agent could send back: the user gives the command in
a terminal, or starts the server with ``--without-asking``, which is a person's yes to every call. So a text in a document
can start nothing by itself.
"""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from advisor.mcp_server.contracts import Costs


class Consent(BaseModel):
    """The answer to the question whether to start."""

    proceed: bool = Field(description="Whether to start it now.")


def can_ask_user(context: Context[Any, Any]) -> bool:
    """Return whether the client declared that it can show its user a form (elicitation)."""
    capabilities = context.client_capabilities
    form = capabilities.elicitation if capabilities is not None else None
    return form is not None and (form.form is not None or form.url is None)


def costs_text(what: str, costs: Costs) -> str:
    """Return in a few lines what starting takes."""
    lines = [
        f"{what} takes about {costs.minutes:.1f} minutes on this machine and {costs.usd:.2f} USD.",
        f"It writes about {costs.disk_mib:.0f} MiB into {costs.writes}.",
        *(f"It fetches first: {download}." for download in costs.downloads),
        *costs.notes,
    ]
    return "\n".join(lines)
