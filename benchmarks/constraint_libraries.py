"""Libraries that constrain what a model writes, compared: what they accept of the JSON-Schema-Test-Suite, and their speed.

python -m benchmarks.constraint_libraries --suite PATH --tokenizer FOLDER [--tokenizer FOLDER ...] [--library NAME ...]

PATH is a clone of https://github.com/json-schema-org/JSON-Schema-Test-Suite (with or without a work tree), FOLDER holds
a tokenizer.json. llguidance, xgrammar and outlines-core are each left out, with the reason, where they are not installed;
they need transformers, xgrammar torch too. Each library runs in a process of its own, which is ended where one schema
takes more than `--seconds`.

Each instance of the suite is written as JSON (`", "` and `": "`, letters unescaped, keys in the instance's own order)
and fed token by token. A valid one that is refused is tried again without spaces, and with its keys in every other
order. outlines-core builds a table of all tokens for each schema, so for the suite alone its tokens are single bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

SECONDS_PER_GRAMMAR = 300.0
"""For the compilation of one grammar over a whole vocabulary, and its masks."""
LIBRARIES = ("llguidance", "xgrammar", "outlines-core")
Case = tuple[str, str]
"""Kind (json_schema or regex) and text of a grammar."""


class LlguidanceLibrary:
    """llguidance: Earley parser over lazily built automata; masks are computed as they are needed."""

    def __init__(self, folder: Path, bytes_only: bool) -> None:
        """Read the tokenizer; `bytes_only` is of no use here."""
        import llguidance
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        text = self.tokenizer.backend_tokenizer.to_str()
        self.inner = llguidance.LLTokenizer(text, eos_token=end_token(self.tokenizer))
        self.matcher_class = llguidance.LLMatcher
        self.mask_bytes = bytearray((self.inner.vocab_size + 31) // 32 * 4)

    def tokens(self, text: str) -> list[int]:
        """Return a text as tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def compile(self, case: Case) -> Any:
        """Return the compiled grammar; ValueError for one that is refused."""
        kind, text = case
        make = self.matcher_class.grammar_from_json_schema if kind == "json_schema" else None
        grammar = make(text) if make else self.matcher_class.grammar_from_regex(text)
        matcher = self.matcher_class(self.inner, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def start(self, compiled: Any) -> Any:
        """Return the state at the beginning of an answer."""
        return compiled.deep_copy()

    def mask(self, state: Any) -> None:
        """Compute which tokens are allowed."""
        state.compute_bitmask()

    def accept(self, state: Any, token: int) -> bool:
        """Take one token; return whether it was allowed."""
        return bool(state.try_consume_tokens([token]) == 1)

    def ended(self, state: Any) -> bool:
        """Return whether the answer may end here."""
        return bool(state.is_accepting())


class XgrammarLibrary:
    """xgrammar: pushdown automaton; masks that do not depend on the stack are computed when it is compiled."""

    def __init__(self, folder: Path, bytes_only: bool) -> None:
        """Read the tokenizer; `bytes_only` is of no use here."""
        import xgrammar
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.end = end_token(self.tokenizer)
        self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(self.end)
        info = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, stop_token_ids=[self.end])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.matcher_class = xgrammar.GrammarMatcher
        self.mask_bytes = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def tokens(self, text: str) -> list[int]:
        """Return a text as tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def compile(self, case: Case) -> Any:
        """Return the compiled grammar; an exception for one that is refused."""
        kind, text = case
        if kind == "json_schema":  # strict_mode would forbid properties that the schema does not name
            return self.compiler.compile_json_schema(text, strict_mode=False)
        return self.compiler.compile_regex(text)

    def start(self, compiled: Any) -> Any:
        """Return the state at the beginning of an answer."""
        return self.matcher_class(compiled)

    def mask(self, state: Any) -> None:
        """Compute which tokens are allowed."""
        state.fill_next_token_bitmask(self.mask_bytes)

    def accept(self, state: Any, token: int) -> bool:
        """Take one token; return whether it was allowed."""
        return bool(state.accept_token(token))

    def ended(self, state: Any) -> bool:
        """Return whether the answer may end here."""
        return bool(state.is_terminated() or state.accept_token(self.end))


class OutlinesLibrary:
    """outlines-core: the schema becomes one regular expression, and a table of every state and token."""

    def __init__(self, folder: Path, bytes_only: bool) -> None:
        """Read the tokenizer, or make one of single bytes."""
        import outlines_core
        from outlines_core.json_schema import build_regex_from_schema
        from transformers import PreTrainedTokenizerFast

        self.module, self.regex_of = outlines_core, build_regex_from_schema
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.bytes_only = bytes_only
        self.end = 256 if bytes_only else end_token(self.tokenizer)
        texts = {bytes([n]): [n] for n in range(256)} if bytes_only else token_bytes(self.tokenizer, self.end)
        self.vocabulary = outlines_core.Vocabulary(self.end, texts)
        size = 257 if bytes_only else len(self.tokenizer)
        self.mask_bytes = bytearray((size + 31) // 32 * 4)

    def tokens(self, text: str) -> list[int]:
        """Return a text as tokens."""
        if self.bytes_only:
            return list(text.encode())
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def compile(self, case: Case) -> Any:
        """Return the table; an exception for a grammar that is refused."""
        kind, text = case
        return self.module.Index(self.regex_of(text) if kind == "json_schema" else text, self.vocabulary)

    def start(self, compiled: Any) -> Any:
        """Return the state at the beginning of an answer."""
        return self.module.Guide(compiled)

    def mask(self, state: Any) -> None:
        """Compute which tokens are allowed."""
        import ctypes

        buffer = (ctypes.c_uint8 * len(self.mask_bytes)).from_buffer(self.mask_bytes)
        state.write_mask_into(ctypes.addressof(buffer), len(self.mask_bytes) // 4, 4)

    def accept(self, state: Any, token: int) -> bool:
        """Take one token; return whether it was allowed."""
        if not state.accepts_tokens([token]):
            return False
        state.advance(token, return_tokens=False)
        return True

    def ended(self, state: Any) -> bool:
        """Return whether the answer may end here."""
        return bool(state.is_finished() or state.accepts_tokens([self.end]))


MAKERS: dict[str, Callable[[Path, bool], Any]] = {
    "llguidance": LlguidanceLibrary,
    "xgrammar": XgrammarLibrary,
    "outlines-core": OutlinesLibrary,
}


def end_token(tokenizer: Any) -> int:
    """Return the id of the token that ends an answer, of the families that the benchmark reads."""
    for text in ("<|im_end|>", "<end_of_turn>", "</s>", "<eos>"):
        token = tokenizer.convert_tokens_to_ids(text)
        if isinstance(token, int) and tokenizer.convert_ids_to_tokens(token) == text:
            return token
    raise SystemExit("the tokenizer has no token that ends an answer")


def token_bytes(tokenizer: Any, end: int) -> dict[bytes, list[int]]:
    """Return the bytes of every ordinary token, for byte-level and for SentencePiece vocabularies, and their ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [n for n in range(256) if n not in printable]
    byte_of = {chr(n): n for n in printable} | {chr(256 + i): n for i, n in enumerate(others)}
    vocabulary = tokenizer.get_vocab()
    byte_level = "Ġthe" in vocabulary  # gemma has "Ġ" as a character of its own
    special = set(tokenizer.added_tokens_decoder)
    texts: dict[bytes, list[int]] = {}
    for text, token in vocabulary.items():
        if token in special or token == end:
            continue
        if byte_level:
            raw = bytes(byte_of[letter] for letter in text)
        elif re.fullmatch("<0x[0-9A-F]{2}>", text):
            raw = bytes([int(text[3:5], 16)])
        else:
            raw = text.replace("▁", " ").encode()
        texts.setdefault(raw, []).append(token)
    return texts


def suite_groups(path: Path, dialect: str = "draft2020-12") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file name and test group (description, schema, tests) of the required tests of the suite."""
    folder = f"tests/{dialect}/"
    if (path / "tests").is_dir():
        texts = {file.name: file.read_text("utf-8") for file in sorted((path / folder).glob("*.json"))}
    else:
        git = ["git", "--git-dir", str(path)]
        names = subprocess.run(
            [*git, "ls-tree", "--name-only", "HEAD", folder], capture_output=True, check=True
        )
        listed = [name for name in names.stdout.decode().split("\n") if name.endswith(".json")]
        texts = {
            Path(name).name: subprocess.run(
                [*git, "show", f"HEAD:{name}"], capture_output=True, check=True
            ).stdout.decode()
            for name in listed
        }
    for name, text in texts.items():
        for group in json.loads(text):
            yield name, group


def spellings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the JSON texts of an instance, and how each is written: as usual, without spaces, keys in other orders."""
    yield "usual", json.dumps(value, ensure_ascii=False)
    yield "no spaces", json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, dict) and 2 <= len(value) <= 5:
        for order in itertools.permutations(value):
            yield "other order", json.dumps({key: value[key] for key in order}, ensure_ascii=False)


def accepts(library: Any, compiled: Any, text: str) -> bool:
    """Return whether a text is a whole answer of the grammar."""
    state = library.start(compiled)
    return all(library.accept(state, token) for token in library.tokens(text)) and library.ended(state)


def check_group(library: Any, group: dict[str, Any]) -> dict[str, Any]:
    """Compile the schema of a group and feed its instances; return what came out."""
    try:
        compiled = library.compile(("json_schema", json.dumps(group["schema"], ensure_ascii=False)))
    except BaseException as problem:  # a panic of a Rust library is no Exception
        if isinstance(problem, KeyboardInterrupt):
            raise
        panic = type(problem).__name__ == "PanicException"
        return {"crash" if panic else "refused": f"{type(problem).__name__}: {problem}"[:300]}
    counts: Counter[str] = Counter()
    wrong = []
    for test in group["tests"]:
        usual, *others = list(spellings(test["data"]))
        ok = accepts(library, compiled, usual[1])
        kind = "valid" if test["valid"] else "invalid"
        counts[f"{kind} {'accepted' if ok else 'refused'}"] += 1
        if ok != test["valid"]:
            how = next(
                (how for how, text in others if test["valid"] and accepts(library, compiled, text)), ""
            )
            if how:
                counts[f"valid, accepted with {how}"] += 1
            else:
                wrong.append(f"{kind}: {test['description']}")
    return {"counts": dict(counts), "wrong": wrong}


PLACE = {"type": "object", "properties": {"name": {"type": "string"}, "berths": {"type": "integer"}}}
SCHEMAS: dict[str, tuple[dict[str, Any], Any]] = {
    "object": (
        {**PLACE, "required": ["name", "berths"], "additionalProperties": False},
        {"name": "Heron Pier, the northern one", "berths": 12},
    ),
    "any json": ({}, {"a": [1, 2.5, {"b": "some words of text"}], "c": None, "d": {"e": [True, "x"]}}),
    "nested": (
        {
            "type": "object",
            "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/p"}, "maxItems": 5}},
            "required": ["items"],
            "$defs": {"p": {**PLACE, "required": ["name"]}},
        },
        {"items": [{"name": "Heron", "berths": 3}, {"name": "Tern"}, {"name": "Gull", "berths": 40}]},
    ),
    "enum and bounds": (
        {
            "type": "object",
            "properties": {
                "state": {"enum": ["open", "shut", "under repair"]},
                "depth": {"type": "number", "minimum": 0, "maximum": 20},
                "day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
            },
            "required": ["state", "depth", "day"],
            "additionalProperties": False,
        },
        {"state": "under repair", "depth": 7.25, "day": "2026-11-26"},
    ),
}
"""Schemas whose speed is measured, each with an instance."""


def labels(count: int) -> list[str]:
    """Return label names of the kind that intent sets have."""
    verbs = ("change", "report", "cancel", "ask", "order", "lost", "declined", "pending", "top_up", "verify")
    things = (
        "card",
        "pin",
        "transfer",
        "refund",
        "account",
        "limit",
        "exchange_rate",
        "cash_withdrawal",
        "fee",
    )
    more = ("", "_abroad", "_failed")
    return [f"{v}_{t}{m}" for m, v, t in itertools.product(more, verbs, things)][:count]


def speed_cases() -> dict[str, tuple[Case, str]]:
    """Return the grammars whose speed is measured, each with an answer."""
    cases: dict[str, tuple[Case, str]] = {
        name: (("json_schema", json.dumps(schema)), json.dumps(instance))
        for name, (schema, instance) in SCHEMAS.items()
    }
    for count in (77, 150):
        names = labels(count)
        cases[f"{count} labels"] = (("regex", "|".join(names)), names[-1])
    cases["pattern"] = (("regex", "[A-Z]{2}-[0-9]{4}: [a-z ]{5,60}"), "HP-0412: moored at the northern pier")
    return cases


def measure(library: Any, case: tuple[Case, str]) -> dict[str, Any]:
    """Return milliseconds to compile a grammar (median of 3, first apart) and microseconds per token of its mask."""
    grammar, answer = case
    compile_ms, mask_us = [], []
    for _ in range(3):
        started = time.perf_counter()
        compiled = library.compile(grammar)
        compile_ms.append((time.perf_counter() - started) * 1e3)
    complete = False
    for _ in range(20):
        state = library.start(compiled)
        for token in library.tokens(answer):
            started = time.perf_counter()
            library.mask(state)
            allowed = library.accept(state, token)
            mask_us.append((time.perf_counter() - started) * 1e6)
            if not allowed:
                return {
                    "refused": "an answer of the grammar is refused",
                    "compile_ms": round(median(compile_ms), 2),
                }
        complete = library.ended(state)
    return {
        "compile_ms": round(median(compile_ms), 2),
        "first_ms": round(compile_ms[0], 2),
        "mask_us_median": round(median(mask_us), 1),
        "mask_us_p99": round(quantiles(mask_us, n=100)[98], 1),
        "mask_us_max": round(max(mask_us), 1),
        "complete": complete,
    }


def work(name: str, folder: Path, bytes_only: bool, pipe: Any) -> None:
    """Answer what comes through a pipe: test groups, and cases to measure."""
    started = time.perf_counter()
    library = MAKERS[name](folder, bytes_only)
    pipe.send(time.perf_counter() - started)
    while (item := pipe.recv()) is not None:
        what, value = item
        try:
            pipe.send(check_group(library, value) if what == "group" else measure(library, value))
        except BaseException as problem:  # panics too; they are counted
            pipe.send({"crash": f"{type(problem).__name__}: {problem}"[:300]})


class Worker:
    """A library in a process of its own, started again where it dies or takes too long."""

    def __init__(self, name: str, folder: Path, bytes_only: bool = False) -> None:
        """Start it."""
        self.arguments = (name, folder, bytes_only)
        self.start()

    def start(self) -> None:
        """Start the process; `load_seconds` is what reading the tokenizer took."""
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=work, args=(*self.arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.load_seconds = self.pipe.recv()

    def ask(self, what: str, value: Any, seconds: float) -> dict[str, Any]:
        """Return the answer; {"crash": ...} where the process died, or was ended after so many seconds."""
        self.pipe.send((what, value))
        reason = f"no answer after {seconds:.0f} s"
        try:
            if self.pipe.poll(seconds):
                answer: dict[str, Any] = self.pipe.recv()
                return answer
        except (EOFError, OSError):
            self.process.join(5)
            reason = f"the process died, exit code {self.process.exitcode}"
        self.stop()
        self.start()
        return {"crash": reason}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def run_suite(name: str, suite: Path, folder: Path, seconds: float) -> None:
    """Print what a library makes of the suite, with at most so many seconds for a schema."""
    worker = Worker(name, folder, bytes_only=True)
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    started = time.perf_counter()
    for file, group in suite_groups(suite):
        result = worker.ask("group", group, seconds)
        totals["schemas"] += 1
        for kind in ("refused", "crash"):
            if kind in result:
                totals[f"schemas {kind}"] += 1
                reasons[f"{kind}: {re.sub(r'[0-9]+', 'N', result[kind])[:110]}"] += 1
                if kind == "crash":
                    print(f"  {name}: crash in {file}, {group['description']!r}: {result[kind]}", flush=True)
        totals.update(result.get("counts", {}))
        for text in result.get("wrong", ()):
            wrong[f"{text.split(':')[0]}, {file}"] += 1
    worker.stop()
    print(f"{name}, suite ({time.perf_counter() - started:.1f} s): {json.dumps(totals)}")
    print(f"  refused or crashed: {json.dumps(dict(reasons.most_common(25)), ensure_ascii=False)}")
    print(f"  wrong in every spelling: {json.dumps(dict(wrong.most_common()))}")


def run_speed(name: str, folder: Path) -> None:
    """Print how fast a library is with one vocabulary."""
    worker = Worker(name, folder)
    print(f"{name}, {folder.name}: tokenizer read in {worker.load_seconds:.1f} s")
    for case, value in speed_cases().items():
        print(f"  {case}: {json.dumps(worker.ask('speed', value, SECONDS_PER_GRAMMAR))}", flush=True)
    worker.stop()


def main() -> None:
    """Compare the libraries that are installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, action="append", required=True)
    parser.add_argument("--library", action="append", choices=LIBRARIES)
    parser.add_argument("--seconds", type=float, default=5.0, help="most for one schema of the suite")
    given = parser.parse_args()
    for name in given.library or LIBRARIES:
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name}: left out, it is not installed")
            continue
        run_suite(name, given.suite, given.tokenizer[0], given.seconds)
        for folder in given.tokenizer:
            run_speed(name, folder)


if __name__ == "__main__":
    main()
