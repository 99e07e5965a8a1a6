"""The confirmation that `run` and `train` need before anything starts: what it takes, and who agreed.

A client that can ask its user (elicitation) shows the question with minutes, money, disk and folder, and only a person's
yes starts the work. For other clients there are two calls: the first returns the same facts with a one-time token, the
second has to repeat every argument with that token. A token is random, is held in memory only, belongs to the exact
arguments and to the bytes of the plan, and ends after ten minutes or at its first use. So a text in a document can start
nothing by itself: it is not a call, it cannot contain a token, and what was agreed to cannot be exchanged afterwards. The
agent's own client decides which calls of the agent it asks its user about.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from advisor.mcp_server.contracts import Costs
from rag.errors import UsageProblem
from rag.files import canonical_json, sha256_file, sha256_text

TOKEN_SECONDS = 600.0
"""Seconds that a token is valid."""


class Consent(BaseModel):
    """The answer to the question whether to start."""

    proceed: bool = Field(description="Whether to start it now.")


class Confirmations:
    """The tokens that were handed out and not used yet."""

    def __init__(self) -> None:
        """Start without any."""
        self._issued: dict[str, tuple[str, float]] = {}

    def issue(self, request: str) -> str:
        """Return a new token for a request, as :func:`request_digest` names it."""
        token = secrets.token_urlsafe(18)
        self._issued[token] = (request, time.monotonic() + TOKEN_SECONDS)
        return token

    def redeem(self, token: str, request: str) -> None:
        """Use up a token; UsageProblem when it is unknown, too old, used, or was given for something else."""
        issued, until = self._issued.pop(token, ("", 0.0))
        if not issued:
            raise UsageProblem(
                "this confirmation is not known, or was used already", "call without it first, for a new one"
            )
        if time.monotonic() > until:
            raise UsageProblem(
                f"this confirmation is older than {TOKEN_SECONDS / 60:.0f} minutes",
                "call without it first, for a new one",
            )
        if issued != request:
            raise UsageProblem(
                "this confirmation was given for other arguments, or the files have changed since",
                "call without it first, for a new one",
            )


def request_digest(tool: str, arguments: Mapping[str, Any], files: tuple[Path, ...]) -> str:
    """Return the hash of a tool's name, all its arguments but the token, and the bytes of the files that decide the work."""
    contents = [sha256_file(path) for path in files if path.is_file()]
    return sha256_text(canonical_json([tool, dict(arguments), contents]))


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
