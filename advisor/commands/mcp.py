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
        help="Offer run and train too. Each starts after your client showed you minutes, money and disk, and you agreed.",
    ),
    without_asking: bool = typer.Option(
        False,
        "--without-asking",
        help="With --allow-run: agree now to every run and training, for a client that cannot ask you.",
    ),
    tools: bool = typer.Option(False, "--tools", help="Print the tools with their schemas as JSON, and end."),
    skill: bool = typer.Option(
        False, "--skill", help="Print a skill file that teaches an agent to use the commands, and end."
    ),
) -> None:
    """Offer advice, search, answers and reports to agents (MCP).

    A client such as Claude Code or Cursor starts this command itself and talks to it on stdin and stdout; docs/agents.md
    shows its settings. The tools read
    files below --root only, send nothing over the network, and text of documents cannot start anything.
    """
    if skill:
        from importlib.resources import files

        print(files("advisor").joinpath("skills", "tunewise", "SKILL.md").read_text("utf-8"), end="")
        return
    from advisor.terminal import require_extra

    require_extra("mcp", "mcp")
    from advisor.mcp_server import server

    if tools:
        import json

        print(json.dumps({"schema": 1, "tools": server.tool_list(root, allow_run)}, indent=2))
        return
    server.serve_stdio(root, allow_run, without_asking)
