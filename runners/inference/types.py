"""The interface of a model that arms use, local or remote: chats in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import dataclass, field
from typing import Any, Protocol

from rag.errors import BadInput
from rag.types import Hit
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Raise BadInput for answers of no tokens: every model generates at least one."""
    if max_new_tokens < 1:
        raise BadInput(f"answers of {max_new_tokens} tokens were asked for", "ask for at least 1")


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """How likely a classifier finds a label for a text, calibrated on held-out training rows."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class NearestQuestion:
    """The question whose reply was given word for word, or would have been, had it been near enough."""

    question: str
    similarity: float
    """Cosine of the two questions' vectors."""
    given: bool
    """Whether its reply was given; else the answer is the plan's refusal."""


def labels_and_nearest(
    row: Mapping[str, Any],
) -> tuple[tuple[LabelProbability, ...], NearestQuestion | None]:
    """Return the labels and the nearest question of an answer from its JSON, where it has them."""
    labels = tuple(LabelProbability(**one) for one in row.get("labels", ()))
    return labels, NearestQuestion(**row["example"]) if row.get("example") else None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for; ``arguments`` is the JSON that it wrote, whether or not it is valid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What a model looked up itself before it answered."""

    hits: tuple[Hit, ...] = ()
    """The lines of documents that it was shown, as passages; () where the answer is read from its JSON."""
    passages: int
    """How many passages it was shown."""
    documents: int = 0
    """How many documents there were."""
    requests: int
    """How often it was asked, for calls or for the answer."""
    calls: int
    own: int
    """Those beyond the search for the question, which comes before its first request, without repeated ones."""
    limit: str = ""
    """The limit that ended it: steps, tokens, seconds, usd or context; "" where it answered by itself."""
    repeated: int = 0
    """Calls that it had made before."""
    problems: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Calls that were not carried out, by what was wrong with them."""
    withheld: int = 0
    """Sentences left out of the answer because they repeat the instructions at length."""
    notes: tuple[str, ...] = ()
    """What was left out of the documents."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts for an answer's row; those that are 0 are left out, but for requests, calls and own."""
        counts = {"limit": self.limit, "repeated": self.repeated, "withheld": self.withheld}
        counts |= {"problems": dict(self.problems)}
        more = {key: value for key, value in counts.items() if value}
        first = {"requests": self.requests, "calls": self.calls, "own": self.own, "passages": self.passages}
        return {**first, **more}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Lookups | None:
        """Return the counts that an answer's JSON has under ``lookups``; None where it has none."""
        counts = row.get("lookups")
        return cls(**{"own": counts["calls"], **counts}) if counts else None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Time of the answer; in a batch, the time of the batch divided by its rows."""
    finish: str
    """stop, or length when the answer reached the limit of tokens."""
    estimated: bool = False
    """Whether the numbers of tokens are estimated, because a server did not count them."""
    reasoning_tokens: int = 0
    """Tokens of the reasoning before the answer; they are among ``completion_tokens``, the reasoning is not in ``text``."""
    reasoning_cut: bool = False
    """Whether the limit of tokens was reached inside the reasoning, so that there is no answer."""
    labels: tuple[LabelProbability, ...] = ()
    """Of a classifier: the most likely labels, the likeliest first; () for answers that were generated."""
    nearest: NearestQuestion | None = None
    """Of an arm of nearest replies: the nearest question; None for other answers."""
    calls: tuple[ToolCall, ...] = ()
    """Of a request with tools: the calls that the model asks for before it answers."""
    lookups: Lookups | None = None
    """Of an arm that searches by itself: what it looked up; None for other answers."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; greedy unless a temperature is given."""

    temperature: float = 0.0
    """Divides the logits before tokens are drawn; 0 is greedy."""
    top_p: float = 1.0
    """Tokens are drawn from the fewest whose probabilities reach this sum (nucleus sampling)."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end an answer; neither they nor what follows is part of it."""

    def __post_init__(self) -> None:
        """Raise BadInput for values out of range."""
        if not 0 <= self.temperature <= 100:
            raise BadInput(f"temperature {self.temperature!r} is not between 0 and 100")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p {self.top_p!r} is not above 0 and at most 1")
        if not 0 <= self.seed < 1 << 40:
            raise BadInput(f"seed {self.seed!r} is not between 0 and 2^40")
        if "" in self.stop:
            raise BadInput("an empty stop text would end every answer before it starts")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0


GREEDY = Sampling()


class CompletionStream(Iterator[str]):
    """The pieces of an answer as they are generated; `completion` is the whole answer once they have ended."""

    def __init__(self, running: Running[str, None, Completion]) -> None:
        """Wrap a Python generator that yields the pieces and returns the completion."""
        self._running = running
        self._completion: Completion | None = None

    @classmethod
    def of_whole(cls, answer: Callable[[], Completion]) -> CompletionStream:
        """Return a stream whose only piece is a whole answer, which is asked for when the stream is read."""

        def pieces() -> Running[str, None, Completion]:
            completion = answer()
            yield completion.text
            return completion

        return cls(pieces())

    def __next__(self) -> str:
        """Return the next piece, never an empty one."""
        try:
            return next(self._running)
        except StopIteration as end:
            self._completion = self._completion or end.value
            raise

    def finish(self) -> Completion:
        """Consume the remaining pieces and return the whole answer."""
        for _ in self:
            pass
        return self.completion

    def close(self) -> None:
        """Stop generating the answer, which frees the model or the connection."""
        self._running.close()

    @property
    def completion(self) -> Completion:
        """The whole answer; ValueError before the stream has ended."""
        if self._completion is None:
            raise ValueError("the stream has not ended")
        return self._completion


class Generator(Protocol):
    """A model that answers chats, on this machine or behind a server."""

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer every chat and return the answers in order.

        Args:
            chats: The chats, each a list of messages.
            max_new_tokens: Most tokens of an answer.
            on_batch: Called with the indexes and answers of each batch as it ends.
            known: Indexes that are not answered, because they were before; the other answers are the same as if all
                chats were answered together.
            constraint: What every answer may be; None for any text.
        """
        ...

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Answer one chat piece by piece."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text for this model, without special tokens."""
        ...
