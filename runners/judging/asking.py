"""A judge that can be asked: an endpoint, or a model of this process, loaded alone and held to the words it may say."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from rag.types import OnEvent
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, Generator
from runners.models import resolve
from runners.runs.opened import OpenRun

MAX_JUDGE_TOKENS = 400
"""Most tokens of a reply of an endpoint; some models reason before the requested word."""
MAX_WORD_TOKENS = 8
"""Most tokens of a reply of a judge in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJudge:
    """A judge with the model that answers for it."""

    name: str
    """As the plan has it."""
    generator: Generator
    in_process: bool = False

    def ask(
        self,
        chats: Sequence[Sequence[Message]],
        words: Sequence[str],
        write: Callable[[int, str], None],
        on_event: OnEvent | None = None,
    ) -> None:
        """Ask every chat; each reply is written, with the place of its chat, before the next one is awaited.

        Args:
            chats: what is asked.
            words: what it may say; a model of this process is held to them.
            write: receives the place of a chat and its reply.
            on_event: receives an event after each batch.
        """
        done = 0

        def write_batch(positions: list[int], completions: list[Completion]) -> None:
            nonlocal done
            for position, completion in zip(positions, completions, strict=True):
                write(position, completion.text)
            done += len(positions)
            if on_event:
                on_event({"event": "judge.batch", "done": done, "total": len(chats)})

        most_tokens = MAX_WORD_TOKENS if self.in_process else MAX_JUDGE_TOKENS
        constraint = OutputConstraint.of_labels(words) if self.in_process else None
        self.generator.generate(chats, most_tokens, write_batch, constraint=constraint)


@contextmanager
def opened_judge(context: OpenRun) -> Iterator[OpenJudge]:
    """Connect or load the judge of a run's plan; a local one has the memory for itself, and leaves it at the end.

    Raises:
        BadInput: the endpoint may not be asked.
        CannotRun: this machine does not hold the model.
    """
    settings = context.plan.judge
    assert settings is not None
    if remote := resolve.parse_remote(settings.name):
        with closing(context.models.connect_endpoint(remote, settings)) as generator:
            yield OpenJudge(name=settings.name, generator=generator)
        return
    context.models.release()
    try:
        yield OpenJudge(name=settings.name, generator=context.models.load_judge(), in_process=True)
    finally:
        gc.collect()
