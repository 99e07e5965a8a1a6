"""The forms of logs that hold questions, and the turns that each row of one holds.

:data:`FORMS` lists them: chats of OpenAI's API, OpenTelemetry spans of generative AI, the log of ``tunewise
serve``, and a table of a help desk. :func:`detect_form` says which one the first rows have, :func:`row_chats` gives
the chats of a row.

Spans are read as the semantic conventions for generative AI have them from 1.37 on (``gen_ai.input.messages``), and
as earlier ones and instrumentations wrote them: events ``gen_ai.content.prompt`` and ``gen_ai.user.message``,
attributes ``gen_ai.prompt`` and ``gen_ai.prompt.0.content``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag.errors import BadInput

SERVE_LOG_KEY = "tunewise_question"
"""The key by which a row of the server's log is known; its value is the version of the row's form."""
CHATS, SPANS, SERVE_LOG, TABLE = "chats", "spans", "serve log", "table"
FORMS: dict[str, str] = {
    CHATS: 'chats, one request a line: {"messages": [{"role": "user", "content": ...}]}, also below request or body',
    SPANS: "OpenTelemetry spans with gen_ai.input.messages, gen_ai.prompt or gen_ai.user.message",
    SERVE_LOG: f'the log of tunewise serve --log: {{"{SERVE_LOG_KEY}": 1, "turns": [...]}}',
    TABLE: "a table (.csv, .tsv) with a column such as question, message, description, body or subject",
}
"""Each form and how it is known, in the order in which they are looked for."""
_ROLE_NAMES = {
    "user": "user human prompter customer end-user client requester visitor guest",
    "assistant": "assistant gpt bot model ai agent support staff operator",
    "system": "system developer",
    "tool": "tool function observation",
}
_ROLES = {name: role for role, names in _ROLE_NAMES.items() for name in names.split()}
_AUTHOR_ROLES = {
    **_ROLES,
    **dict.fromkeys(("outbound", "out", "reply"), "assistant"),
    **dict.fromkeys(("inbound", "in"), "user"),
}
"""What the column of authors may say, where it is no name."""
_QUESTION_COLUMNS = (
    "question",
    "message",
    "description",
    "body",
    "text",
    "content",
    "query",
    "comment",
    "request",
    "inquiry",
)
_TITLE_COLUMNS = ("subject", "title", "summary")
_CONVERSATION_COLUMNS = ("conversation", "thread", "ticket", "case", "session", "chat")
_AUTHOR_COLUMNS = ("author", "role", "sender", "from", "direction")
_MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_FLAT_PROMPT = re.compile(r"gen_ai\.prompt\.(\d+)\.(role|content)")
_SPAN_KEYS = ("resourceSpans", "resourceLogs", "resource_spans")
_DEPTH = 6
"""Levels of lists in which the spans of one row are."""


class NoChat(ValueError):
    """A row cannot be read as its form; the message says why."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat: user, assistant, system or tool."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Chat:
    """The turns of one request or conversation."""

    turns: tuple[Turn, ...]
    trace: str = ""
    """What requests of one trace share: agents send the same question several times; "" where nothing says."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns of a table by what they are."""

    of: Mapping[str, str]

    def value(self, row: Mapping[str, Any], role: str) -> str:
        """Return the text of a row in a role; "" without such a column or value."""
        value = row.get(self.of.get(role, ""))
        return "" if value is None else str(value).strip()


@dataclass(slots=True)
class Conversations:
    """The turns so far of each conversation of a table, whose rows may lie between those of others."""

    columns: TableColumns
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    """Authors that no list knows, who are taken as people who ask, with their rows."""

    def chats(self, row: Mapping[str, Any]) -> list[Chat]:
        """Return the chat that ends with a row's message; none where an agent wrote it."""
        text = self.columns.value(row, "question") or self.columns.value(row, "title")
        author = self.columns.value(row, "author").casefold()
        role = _AUTHOR_ROLES.get(author, "user")
        if author and author not in _AUTHOR_ROLES:
            self.unknown[author] += 1
        turn = Turn(role, text)
        conversation = self.columns.value(row, "conversation")
        if not conversation:
            return [Chat((turn,))] if role == "user" else []
        turns = self.turns.setdefault(conversation, [])
        turns.append(turn)
        del turns[:-MAX_TURNS]
        return [Chat(tuple(turns))] if role == "user" else []


_USUAL_COLUMNS: dict[str, tuple[Sequence[str], str]] = {
    "question": (_QUESTION_COLUMNS, "text|body"),
    "title": (_TITLE_COLUMNS, "text"),
    "conversation": (_CONVERSATION_COLUMNS, "id|number|no|key"),
    "author": (_AUTHOR_COLUMNS, "role|type"),
}
"""The usual names of the column in each role, and what may follow one: a message ID is no message."""
MAX_TURNS = 12
"""Turns of a conversation that are kept while a table is read."""


def detect_form(rows: Sequence[Any]) -> str:
    """Return the form that most of the first rows of a JSON file have; "" where none has a known one."""
    votes = [form for row in rows if (form := _form_of(row))]
    return max(dict.fromkeys(votes), key=votes.count) if votes else ""


def _form_of(row: Any) -> str:
    if isinstance(row, list):
        return next((form for each in row[:5] if (form := _form_of(each))), "")
    if not isinstance(row, dict):
        return ""
    if SERVE_LOG_KEY in row:
        return SERVE_LOG
    if any(key in row for key in _SPAN_KEYS) or any(_has_gen_ai(record) for record in _records(row)):
        return SPANS
    return CHATS if _request(row) is not None else ""


def _has_gen_ai(record: Mapping[str, Any]) -> bool:
    names = [*_attributes(record), *(str(event.get("name", "")) for event in _events(record))]
    return any(name.startswith("gen_ai.") for name in names)


def table_columns(names: Sequence[str], given: Mapping[str, str] | None = None) -> TableColumns:
    """Return the columns of a table: those given by role, the others by their usual names.

    Raises:
        BadInput: a role or column that is given does not exist, or no column holds questions.
    """
    given = given or {}
    for role, name in given.items():
        if role not in _USUAL_COLUMNS:
            raise BadInput(f"--columns: {role!r} is not known", f"choose among {', '.join(_USUAL_COLUMNS)}")
        if name not in names:
            raise BadInput(f"--columns: there is no column {name!r}", f"there are: {', '.join(names)}")
    columns = {
        role: name
        for role, (words, ending) in _USUAL_COLUMNS.items()
        if (name := given.get(role) or _usual_column(names, words, ending))
    }
    if (
        "author" not in columns
    ):  # without it a conversation is a list of questions, and none is the answer to another
        columns.pop("conversation", None)
    if not {"question", "title"} & set(columns):
        raise BadInput(
            f"no column of the table holds questions: {', '.join(names)}",
            "name it: --columns question=COLUMN",
        )
    return TableColumns(columns)


def _usual_column(names: Sequence[str], words: Sequence[str], ending: str) -> str:
    """Return the column with a usual name: the name alone, else as its last word, or before one of the endings."""
    by_lower = {name.strip().casefold(): name for name in names}
    for word in words:
        if word in by_lower:
            return by_lower[word]
    for word in words:
        pattern = re.compile(rf"(?:.*[ _.-])?{word}(?:[ _.-]?(?:{ending}))?")
        if match := next((name for lower, name in by_lower.items() if pattern.fullmatch(lower)), ""):
            return match
    return ""


def row_chats(form: str, row: Any) -> list[Chat]:
    """Return the chats of a row of JSON; [] for one that holds no request to a chat model, such as a tool's span.

    Raises:
        NoChat: the row is damaged, or no row of this form.
    """
    if form == SPANS:
        return [chat for record in _records(row) if (chat := _span_chat(record))]
    if not isinstance(row, dict):
        raise NoChat("not an object")
    messages = row.get("turns") if form == SERVE_LOG else _request(row)
    if messages is None:
        raise NoChat("no messages in it")
    return [Chat(_turns(messages))]  # an answer beside them is not read: it is nothing that was asked


def _request(row: Mapping[str, Any]) -> Any:
    """Return the messages of a request, which may be below a key of its own, as in files of batches; None without."""
    for body in (row, row.get("request"), row.get("body"), _get(row, "request", "body"), row.get("input")):
        if isinstance(body, dict):
            for key in ("messages", "conversations", "conversation"):
                if isinstance(body.get(key), list):
                    return body[key]
            if isinstance(body.get("input"), list | str) and ("model" in body or body is not row):
                value = body["input"]  # of OpenAI's Responses API
                return [{"role": "user", "content": value}] if isinstance(value, str) else value
    return None


def _get(row: Mapping[str, Any], first: str, second: str) -> Any:
    inner = row.get(first)
    return inner.get(second) if isinstance(inner, dict) else None


def _turns(messages: Any) -> tuple[Turn, ...]:
    """Return the turns of a list of messages, those of no text left out."""
    if isinstance(messages, str):
        messages = _parsed(messages)
    if not isinstance(messages, list) or not messages:
        raise NoChat("the messages are empty or no list")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise NoChat("a message is no object")
        if isinstance(message.get("type"), str) and message["type"].endswith(
            ("_call", "_output", "reasoning")
        ):
            turns.append(Turn("tool", ""))  # an item of the Responses API that is no message
            continue
        name = str(message.get("role", message.get("from", ""))).casefold()
        role = _ROLES.get(name)
        if role is None:
            raise NoChat(f"unknown role {name[:20]!r}")
        content = next(
            (message[key] for key in ("content", "parts", "value", "text") if key in message), None
        )
        turns.append(Turn(role, _content(content)))
    return tuple(turns)


def _content(value: Any) -> str:
    """Return the text of a message: a text, or the parts of one that are text."""
    if value is None or isinstance(value, str):
        return value or ""
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and str(part.get("type", "text")) in (
            "text",
            "input_text",
            "output_text",
        ):
            text = part.get("text", part.get("content"))
            texts.append(text if isinstance(text, str) else "")
    return "\n".join(filter(None, texts))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoChat("the messages are broken JSON") from None


def _records(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the spans and log records of a row: one, a list of them, or an export as OTLP has it."""
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for each in value:
            yield from _records(each, depth + 1)
    elif isinstance(value, dict):
        keys = (*_SPAN_KEYS, "scopeSpans", "scopeLogs", "scope_spans", "spans", "logRecords", "data")
        inner = [value[key] for key in keys if isinstance(value.get(key), list)]
        if inner:
            yield from _records(inner, depth)
        elif "attributes" in value or "events" in value:
            yield value


def _attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span, log record or event: a plain object, or OTLP's list of key and typed value."""
    value = record.get("attributes")
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return {
            str(each.get("key")): _any_value(each.get("value")) for each in value if isinstance(each, dict)
        }
    return {}


def _any_value(value: Any, depth: int = 0) -> Any:
    """Return the value of OTLP's AnyValue."""
    if not isinstance(value, dict) or len(value) != 1 or depth > 20:
        return value
    ((kind, inner),) = value.items()
    items = inner.get("values", []) if isinstance(inner, dict) else []
    if kind == "arrayValue":
        return [_any_value(each, depth + 1) for each in items]
    if kind == "kvlistValue":
        return {str(each.get("key")): _any_value(each.get("value"), depth + 1) for each in items}
    return inner if kind.endswith("Value") else value


def _events(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    events = record.get("events")
    return [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []


def _span_chat(record: Mapping[str, Any]) -> Chat | None:
    """Return the chat that a span sent to a model; None where it has no messages."""
    turns: tuple[Turn, ...] = ()
    own = _attributes(record)
    for attributes in (own, *map(_attributes, _events(record))):
        value = attributes.get("gen_ai.input.messages", attributes.get("gen_ai.prompt"))
        if value is not None:
            turns = _prompt_turns(value)
            break
    turns = turns or _event_turns(record) or _flat_turns(own)
    trace = str(record.get("traceId") or record.get("trace_id") or _get(record, "context", "trace_id") or "")
    return Chat(turns, trace) if turns else None


def _prompt_turns(value: Any) -> tuple[Turn, ...]:
    """Return the turns of an attribute: a list of messages, that list as JSON, or the text of one prompt."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return (Turn("user", value),)
    parsed = _parsed(value) if isinstance(value, str) else value
    return _turns(parsed["messages"] if isinstance(parsed, dict) and "messages" in parsed else parsed)


def _event_turns(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns that a span's events have, one event for each message."""
    turns = []
    for event in _events(record):
        if match := _MESSAGE_EVENT.fullmatch(str(event.get("name", ""))):
            attributes = _attributes(event)
            body = event.get("body")
            content = attributes.get("content", body.get("content") if isinstance(body, dict) else body)
            turns.append(Turn(match[1], _content(content)))
    return tuple(turns)


def _flat_turns(attributes: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns of attributes gen_ai.prompt.N.role and gen_ai.prompt.N.content."""
    messages: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        if match := _FLAT_PROMPT.fullmatch(name):
            messages.setdefault(int(match[1]), {"role": "user"})[match[2]] = value
    return _turns([messages[n] for n in sorted(messages)]) if messages else ()
