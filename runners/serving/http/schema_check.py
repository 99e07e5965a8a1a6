"""Whether answers can be held to a client's JSON Schema, found in a process of its own under limits.

`enforcement_problem` is the entry point. A schema of a few lines can keep the compiler of constraints busy for minutes
(patterns that have to match together take twice the time for each one more), and that compiler cannot be interrupted.
So it runs in a child, `python -m runners.serving.http.schema_check`, which reads a schema from its standard input,
compiles it for a vocabulary of single bytes and begins an answer; it is ended when it takes too long. The worker, which
all requests share, compiles only what passed here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from rag.errors import CannotRun

MAX_COMPILE_SECONDS = 2
"""Processor time of the child; ordinary schemas take less than .3 s, its start among them."""
MAX_WAIT_SECONDS = 30.0
"""Time of the child by the clock: it may have to wait for a processor."""
MAX_MEMORY_BYTES = 1 << 30
MAX_PROBE_BYTES = 4096
"""Length of the answer that is tried, which shows states that are too complex, that nothing can follow, or that have no
end."""
MAX_MINIMUM = 1_000
"""Most characters, items or properties that a schema may ask for at the least."""
COSTLY_KEYWORDS = (
    "pattern",
    "patternProperties",
    "multipleOf",
    "minLength",
    "maxLength",
    "oneOf",
    "anyOf",
    "allOf",
)
"""Keywords that a schema may be too complex by."""
_TOO_COMPLEX = "the schema is too complex to constrain an answer to it"
NO_END = f"it has more than {MAX_PROBE_BYTES:,} characters, or none has an end"
_IN_TEXT = bytes(dict.fromkeys(b'"' + bytes(range(256))))
_OUTSIDE_TEXT = bytes(dict.fromkeys(b'}],:"1234567890-.ntfeE{[+' + bytes(range(255, -1, -1))))
"""Bytes in the order in which the answer that is tried takes them: those that end something first."""


@lru_cache(maxsize=512)
def enforcement_problem(schema: str) -> str:
    """Return why answers cannot be held to a schema, given as JSON text; "" when they can.

    Raises:
        CannotRun: the machine is too busy to find out.
    """
    for name, value in schema_keywords(json.loads(schema)):
        if (
            name in ("minLength", "minItems", "minProperties")
            and isinstance(value, int)
            and value > MAX_MINIMUM
        ):
            return f"the schema's {name} is not supported above {MAX_MINIMUM:,}: answers here are shorter"
    command = [sys.executable, "-P", "-m", "runners.serving.http.schema_check"]
    try:
        done = subprocess.run(
            command, input=schema.encode(), capture_output=True, timeout=MAX_WAIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:  # for lack of a processor: not the schema's fault, and not remembered
        raise CannotRun(
            f"the schema could not be compiled within {MAX_WAIT_SECONDS:.0f} s", "try again later"
        ) from None
    if done.returncode > 0:
        raise RuntimeError(f"the process that checks schemas fails: {done.stderr.decode('utf-8', 'replace')}")
    if done.returncode < 0:  # a signal: the processor time or the memory is used up
        return _too_complex(
            schema, f"it takes more than {MAX_COMPILE_SECONDS} s or {MAX_MEMORY_BYTES >> 30} GiB to compile"
        )
    return _plain_message(schema, str(json.loads(done.stdout)))


def schema_keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every keyword of a schema and its value, at any depth; names chosen by its author are no keywords."""
    if isinstance(value, list):
        for item in value:
            yield from schema_keywords(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in DATA_KEYWORDS:
                continue
            yield name, inner
            named = name in NAME_MAPS and isinstance(inner, dict)
            yield from schema_keywords(list(inner.values()) if named else inner)


NAME_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names or patterns chosen by the schema's author to schemas."""
DATA_KEYWORDS = ("const", "enum", "default", "examples")
"""Keywords whose value is data and holds no keywords."""


def compile_error(schema: str) -> str:
    """Return what the compiler has against a schema, in its own words; "" for one that it takes."""
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    tokenizer = LLTokenizer("byte")
    # A smaller step than the default: it bounds the work for one token. (14,000 units take a millisecond.)
    limits = LLParserLimits(step_lexer_fuel=20_000, verbose_errors=False)
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"lenient": False})
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    for _ in range(MAX_PROBE_BYTES):
        if matcher.is_error() or matcher.is_accepting():
            return str(matcher.get_error()) if matcher.is_error() else ""
        allowed = matcher.compute_logit_bias()[:256]
        if matcher.is_error():
            return str(matcher.get_error())
        if not any(allowed):
            return "Unsatisfiable schema: after its beginning nothing can follow"
        order = _IN_TEXT if allowed[ord("#")] else _OUTSIDE_TEXT  # "#" is allowed in texts alone
        matcher.consume_token(next(byte for byte in order if allowed[byte]))
    # The end of a pattern may be missed by these bytes; anything else ends by them where it can end.
    free = any(
        name in ("pattern", "patternProperties", "format") for name, _ in schema_keywords(json.loads(schema))
    )
    return "" if free else f"Unsatisfiable schema: {NO_END}"


def _plain_message(schema: str, error: str) -> str:
    """Return an error of the compiler in the words that a client gets, with the keyword that is at fault."""
    line = error.split("\n")[0].strip()
    if not line:
        return ""
    if keys := re.match(r"Unimplemented keys: (\[.*\])", line):
        names = " and ".join(json.loads(keys[1]))
        return f"the schema's {names} is not supported: an answer cannot be constrained to it while it is generated"
    if line.startswith("oneOf constraints"):
        return "the schema's oneOf is not supported where its branches may overlap: use anyOf"
    if line.startswith("Unknown format"):
        return (
            f"the schema's format is not supported: {line.removeprefix('Unknown format: ')[:64]!r} is unknown"
        )
    if "NoExtension" in line:
        return "no answer can meet the schema: it refers to itself without end"
    if line.startswith("Unsatisfiable schema"):
        return f"no answer can meet the schema: {line.removeprefix('Unsatisfiable schema: ')[:200]}"
    if "regex parse error" in line:
        return f"the schema's pattern is not supported: {' '.join(error.split())[:200]}"
    reasons = (
        "regex is empty",
        "fuel",
        "too many",
        "too large",
        "max is",
        "too complex",
        "patternProperty regexes",
    )
    if any(reason in line for reason in reasons):
        return _too_complex(schema, line.split(":")[0][:100])
    return f"an answer cannot be constrained to the schema: {line[:200]}"


def _too_complex(schema: str, reason: str) -> str:
    present = {name for name, _ in schema_keywords(json.loads(schema))}
    names = [name for name in COSTLY_KEYWORDS if name in present]
    by = f", by its {' or '.join(names)}" if names else ""
    return f"{_TOO_COMPLEX}{by}: {reason}"


def _main() -> None:
    """Read a schema from the standard input under limits, and print what the compiler has against it as JSON."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows; there the caller's clock alone ends it
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (MAX_COMPILE_SECONDS, MAX_COMPILE_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(compile_error(sys.stdin.buffer.read().decode())))


if __name__ == "__main__":
    _main()
