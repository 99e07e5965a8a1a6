"""A scripted model behind the OpenAI protocol that greps, reads and answers by rule: it tests the loop, not quality."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Turn = dict[str, Any]
Reply = str | dict[str, Any]
HERMES = (
    "{% if tools %}<|im_start|>system\n# Tools\n<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools>\n"
    'Call one with <tool_call>{"name": NAME, "arguments": OBJECT}</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}{% if message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ message.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    '{% for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's and Hermes' templates write calls."""


def calling(*calls: tuple[str, Any], text: str = "") -> dict[str, Any]:
    """Return a message that asks for calls, given by tool and arguments; a text of arguments is sent as it is."""
    sent = [
        {
            "id": f"c{n}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": given if isinstance(given, str) else json.dumps(given),
            },
        }
        for n, (name, given) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": sent}


def results(body: dict[str, Any]) -> list[str]:
    """Return the results of calls in a request, in order."""
    return [turn["content"] for turn in body["messages"] if turn["role"] == "tool"]


def question(body: dict[str, Any]) -> str:
    """Return the question of a request: its first user turn, without the passages of the last request."""
    first = next(str(turn["content"]) for turn in body["messages"] if turn["role"] == "user")
    return first.rsplit("Question: ", 1)[-1]


def passages(body: dict[str, Any]) -> str:
    """Return the passages of a request for the answer."""
    return str(body["messages"][-1]["content"]).removeprefix("Passages:\n").rsplit("\n\nQuestion: ", 1)[0]


def in_turn(*replies: Reply) -> Callable[[dict[str, Any]], Reply]:
    """Return a model that gives these replies by the number of its turns in the chat, the last one from then on.

    The last one is its answer too.
    """

    def answer(body: dict[str, Any]) -> Reply:
        if "tools" not in body:
            return replies[-1]
        own = sum(turn["role"] == "assistant" for turn in body["messages"])
        return replies[min(own, len(replies) - 1)]

    return answer


def reader(body: dict[str, Any]) -> Reply:
    """Grep for the longest name in the question, read around the first match, then answer with the line that has it."""
    word = max(reversed(re.findall(r"[A-Z]\w+", question(body))), key=len)
    seen = results(body)
    if "tools" in body and not seen:
        return calling(("grep", {"pattern": word}))
    if "tools" in body:
        match = re.search(r"^(\S+\.md):(\d+): ", seen[0], re.MULTILINE) if len(seen) == 1 else None
        around = match and {"document": match[1], "first_line": max(1, int(match[2]) - 2)}
        return calling(("read", around) if around else ("answer", {}))
    lines = re.findall(r"^(?:\S+:)?\d+: ([^#].*)", passages(body), re.MULTILINE)
    stated = [line for line in lines if word.lower() in line.lower()]
    return stated[-1] if stated else "I could not find that in our documents."
