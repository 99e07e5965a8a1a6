"""`tunewise mcp`: tools for agents over the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    root: Path = typer.Option(
        Path(),
        help="The only folder that the tools read, and with --allow-run write; by default this one.",
    ),
    allow_run: bool = typer.Option(
        False,
        "--allow-run",
        help="Offer run and train too. Each starts only after a confirmation that names minutes, money and disk.",
    ),
    tools: bool = typer.Option(False, "--tools", help="Print the tools with their schemas as JSON, and end."),
) -> None:
    """Serve tools for agents on stdin and stdout: advice, estimates, explanations, search, answers, reports.

    A client such as Claude Code or Cursor starts this command itself; docs/agents.md shows its settings. The tools read
    files below --root only, send nothing over the network, and text of documents cannot start anything.
    """
    from advisor.terminal import require_extra

    require_extra("mcp", "mcp")
    from advisor.mcp_server import server

    if tools:
        import json

        print(json.dumps({"schema": 1, "tools": server.tool_list(root, allow_run)}, indent=2))
        return
    server.serve_stdio(root, allow_run)
