"""`tunewise serve`: a finished run as an OpenAI-compatible endpoint, with a page to ask it."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options


def command(
    run: options.Run,
    arm: str | None = typer.Option(
        None,
        help="Default arm (method) in place of the one the verdict chose.",
        autocompletion=completion.complete_arms,
    ),
    host: str = typer.Option(
        "127.0.0.1", help="Address to listen on; one that other machines reach needs a token."
    ),
    port: int = typer.Option(8000, min=0, max=65535, help="Port; 0 takes a free one."),
    token: Path | None = typer.Option(
        None,
        help="File with the token that requests must send; created with a new token if it does not exist.",
    ),
    allow_host: list[str] = typer.Option(
        [], help="Another name that the server is called by; may be repeated. Others are refused."
    ),
    allow_origin: list[str] = typer.Option(
        [], help="Origin of a page elsewhere that may ask, as https://desk.example; may be repeated."
    ),
    model: options.MovedModel = None,
    backend: options.Backend = None,
    max_tokens: int = typer.Option(
        1024, min=1, help="Longest answer in tokens, whatever a request asks for."
    ),
    queue: int = typer.Option(
        64, min=1, help="Most requests waiting; further ones get status 503 and are asked to retry."
    ),
    time_limit: float = typer.Option(120.0, min=1, help="Most seconds for one request, waiting included."),
    per_minute: int = typer.Option(0, min=0, help="Most requests a minute from one address; 0 is no limit."),
    log: Path | None = typer.Option(
        None,
        help="Write what is asked into this file (.jsonl), for tunewise questions import; the page says so.",
    ),
    log_answers: bool = typer.Option(False, "--log-answers", help="Write the text of answers, too."),
) -> None:
    """Serve a run as an OpenAI-compatible API, with a web page.

    The arms, the base model and the adapters are its models: `model` in a request picks one; by default --arm, else the
    arm that the verdict chose. Answers are those of the trial: with citations and refusals, and always the likeliest
    word unless a temperature is given. Ctrl-C or SIGTERM lets requests in progress end first.
    """
    from advisor.terminal import require_extra

    require_extra("serve", "fastapi", "uvicorn", "sse_starlette", "prometheus_client")
    from advisor.display.events import print_event
    from advisor.methods.arm_titles import arm_titles
    from rag.errors import UsageProblem
    from runners.logs.question_log import QuestionLog
    from runners.serving.http.server import ServeOptions, serve
    from runners.serving.http.service import ServerLimits

    if log_answers and log is None:
        raise UsageProblem("--log-answers needs a log to write to", "name it: --log FILE")
    limits = ServerLimits(max_tokens=max_tokens, seconds=time_limit, per_minute=per_minute)
    served = ServeOptions(
        run=run,
        host=host,
        port=port,
        token=token,
        hosts=tuple(allow_host),
        origins=tuple(allow_origin),
        model=model,
        arm=arm,
        backend=tuple(backend) if backend else None,
        words=arm_titles(),
        log=QuestionLog(path=log, answers=log_answers) if log else None,
    )
    serve(served, limits, queue, print_event)
