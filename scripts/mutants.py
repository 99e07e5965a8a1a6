"""Mutation testing of six modules: are the mutants that the tests of one commit kill still killed at a later commit?

A mutant is a function with one small fault: ``<`` for ``<=``, ``or`` for ``and``, None returned. It is killed when a test
that reaches the function fails. Run this in the root of the commit that is tested; this file may be of another commit:

python scripts/mutants.py reach MAP.json [ARGUMENT OF PYTEST ...]         run tests, write which functions each reaches
python scripts/mutants.py record OUT.json --reach MAP.json --times TABLE  sample 100 mutants a module, run their tests
python scripts/mutants.py compare BEFORE.json --reach MAP.json            at a later commit: run those that were killed

TABLE has processor seconds, number of cases and test function, separated by tabs: tests of more than 5 seconds a case run
only where no other test reaches the function. ``record`` writes its file after every mutant, and the same command continues
an interrupted recording. ``compare`` lists the mutants that are not killed any more, and exits with 1 if there are any.

One process runs the tests once as they are, which makes the fixtures of the session. For each mutant it forks a child, which
puts the mutant's code into the loaded function and runs the tests until one fails. So fixtures of the session, and processes
that a test starts, have no fault. The first time that a test kills a mutant, the same tests run without the fault too, and a
test that fails there is not used.
"""

from __future__ import annotations

import argparse
import ast
import gc
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import _lru_cache_wrapper
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, settings

sys.path.append(str(Path(__file__).resolve().parent.parent))

from scripts.mutations import (
    FILES,
    MODULES,
    ROOT,
    SEED,
    Edit,
    Mutant,
    all_mutants,
    functions_in,
    place_of,
    sample,
)  # fmt: skip

DEAR_S, DEAR_TESTS = 5.0, 5
"""Seconds from which a test is dear, and how many dear tests run for a function that no other test reaches."""
SILENT_S = 600
"""Seconds of waiting without a result after which a child counts as hanging."""
SETTINGS = "OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0"
OPTIONS = (
    "-o addopts= -p no:xdist -p no:cacheprovider --import-mode=importlib --strict-markers --assert=plain "
    "--tb=native -q --hypothesis-seed=0"
)
CALLED: set[str] = set()
REACHED: dict[str, set[str]] = defaultdict(set)
"""Where this file is a plugin of pytest: the functions called in this phase of a test, and those of each test."""


class Session:
    """The plugin of pytest that runs the tests of mutants in place of its own loop over the tests."""

    def __init__(
        self, tests: Mapping[str, Sequence[str]], work: Callable[[Session], None], cap_s: float
    ) -> None:
        """Take the tests of each function, what to do with them, and the processor seconds of a mutant."""
        self.tests, self.work, self.cap_s = tests, work, cap_s
        self.items: dict[str, pytest.Item] = {}
        self.seconds: dict[str, float] = {}
        self.loaded: dict[tuple[str, int, str], list[FunctionType]] = defaultdict(list)
        self.kills: Counter[tuple[str, str]] = Counter()
        self.trusted: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        """Look for failures in the same cases each time: none are stored, made simpler, or refused for being slow."""
        phases, slow = (Phase.explicit, Phase.generate), (HealthCheck.too_slow,)
        settings.register_profile(
            "mutants", settings(), database=None, phases=phases, suppress_health_check=slow
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that reach a mutant."""
        wanted = {test for tests in self.tests.values() for test in tests}
        items[:] = [item for item in items if item.nodeid in wanted]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, find the functions and the caches of results, and do the work."""
        self.session = session
        self.say = session.config.pluginmanager.getplugin("terminalreporter").write_line
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            before = _used_s()
            if all(report.passed for report in self._run_item(item, following)):
                self.items[item.nodeid], self.seconds[item.nodeid] = item, _used_s() - before
        unused = [item.nodeid for item in session.items if item.nodeid not in self.items]
        self.say(
            f"{len(self.items)} tests pass in {sum(self.seconds.values()):.0f} s; others are not used: {unused}"
        )
        gc.unfreeze()  # tests/conftest.py freezes what the imports made, which get_objects() leaves out
        objects = gc.get_objects()
        for each in objects:
            if type(each) is FunctionType:
                self.loaded[place_of(each.__code__)].append(each)
        self.caches = [each for each in objects if type(each) is _lru_cache_wrapper and _is_ours(each)]
        self.work(self)
        return True

    def _run_item(self, item: pytest.Item, following: pytest.Item | None) -> list[pytest.TestReport]:
        """Run a test; what belongs to the session is kept after the last one too."""
        # The session in the place of the next test: pytest tears down what the next test is not part of.
        return runtestprotocol(item, log=False, nextitem=following or self.session)  # type: ignore[arg-type]

    def try_mutant(self, mutant: Mutant, edit: Edit, first: str = "") -> dict[str, str]:
        """Return whether a mutant is killed, how, and by which test; a given test runs first."""
        functions = self.loaded[edit.place]
        try:
            code = edit.code()
        except SyntaxError:
            return {"result": "no valid code"}
        if not functions or any(each.__code__.co_freevars != code.co_freevars for each in functions):
            return {"result": "cannot be replaced"}
        while True:
            names = self._ordered(mutant.name, first)
            if not names:
                return {"result": "reached by no test"}
            how, by = self._run(names, functions, code)
            if not by:
                return {"result": how}
            if by not in self.trusted:
                _, wrong = self._run(names[: names.index(by) + 1], [], code)
                if wrong:
                    self.say(f"not used from here on, since it fails without a fault: {wrong}")
                    del self.items[wrong]
                    continue
                self.trusted.add(by)
            self.kills[mutant.name, by] += 1
            return {"result": "killed", "how": how, "by": by}

    def _ordered(self, function: str, first: str) -> list[str]:
        """Return the tests of a function: those that killed mutants of it, then file by file, cheap files first."""
        names = [name for name in dict.fromkeys((first, *self.tests.get(function, ()))) if name in self.items]
        cost: dict[str, float] = defaultdict(float)
        for name in names:
            cost[_file(name)] += self.seconds[name]
        place = {name: number for number, name in enumerate(self.items)}
        names.sort(key=lambda name: (-self.kills[function, name], cost[_file(name)], place[name]))
        return sorted(names, key=lambda name: name != first)

    def _run(
        self, names: Sequence[str], functions: Sequence[FunctionType], code: CodeType
    ) -> tuple[str, str]:
        """Run tests in a child with the code in the functions; return the result, and the test that failed or ""."""
        folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                self._run_in_child(names, functions, code, folder, write)
            finally:
                os._exit(1)
        os.close(write)
        said, silent_s, status = "", 0, None
        while status is None:
            if select.select([read], [], [], 1.0)[0]:
                said, silent_s = said + (got := os.read(read, 4096).decode()), 0
                status = None if got else os.waitpid(child, 0)[1]
            elif (ended := os.waitpid(child, os.WNOHANG))[0]:  # what the child started may keep the pipe open
                status = ended[1]
            elif (
                silent_s := silent_s + 1
            ) > SILENT_S:  # counted, so that a recording can be stopped and continued
                os.kill(child, signal.SIGKILL)
        os.close(read)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        words = said.split()
        if words[-1] in ("survived", "capped"):
            return words[-1], ""
        endings = {int(signal.SIGPROF): "took too long", int(signal.SIGKILL): "was hanging"}
        how = words.pop() if words[-1] == "failed" else endings.get(status & 0x7F, "ended the process")
        return how, names[int(words[-1])]

    def _run_in_child(
        self,
        names: Sequence[str],
        functions: Sequence[FunctionType],
        code: CodeType,
        folder: Path,
        write: int,
    ) -> None:
        """Write the number of each test that starts, and at the end the result, to a pipe."""
        os.setpgid(0, 0)
        self.session.config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
        for function in functions:
            function.__code__ = code
        for cache in self.caches:
            cache.cache_clear()
        start, items = _used_s(), [self.items[name] for name in names]
        for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            os.write(write, b"%d\n" % number)
            # The signal of this timer ends the process: a test that takes ten times as long as it did loops.
            signal.setitimer(signal.ITIMER_PROF, 10 + 10 * self.seconds[item.nodeid])
            if any(report.failed for report in self._run_item(item, following)):
                os.write(write, b"failed\n")
                return
            if _used_s() - start > self.cap_s and following:
                os.write(write, b"capped\n")
                return
        os.write(write, b"survived\n")


def _is_ours(function: Any) -> bool:
    code = getattr(function.__wrapped__, "__code__", None)
    return code is not None and Path(code.co_filename).is_relative_to(ROOT)


def _used_s() -> float:
    return sum(os.times()[:4])


def _file(test: str) -> str:
    return test.partition("::")[0]


def read_tests(path: Path, table: Path | None, functions: set[str]) -> dict[str, list[str]]:
    """Return the tests that reach each function, without dear ones where there are others."""
    seconds: dict[str, float] = {}
    for line in table.read_text("utf-8").splitlines()[1:] if table else ():
        used, cases, test = line.split("\t")
        seconds[test] = float(used) / int(cases)

    def cost(test: str) -> float:
        return seconds.get(test.partition("[")[0], 0.0)

    tests: dict[str, list[str]] = defaultdict(list)
    for test, reached in json.loads(path.read_text("utf-8")).items():
        for function in functions.intersection(reached):
            tests[function].append(test)
    for function, names in tests.items():
        tests[function] = [n for n in names if cost(n) <= DEAR_S] or sorted(names, key=cost)[:DEAR_TESTS]
    return dict(tests)


def record(args: argparse.Namespace) -> int:
    """Sample mutants of every module, run them, and write the report after each."""
    found = all_mutants()
    tests = read_tests(args.reach, args.times, {mutant.name for mutant in found})
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    report: dict[str, Any] = {"commit": git.stdout.strip(), "seed": SEED, "left out": {}, "mutants": []}
    if args.report.is_file():
        before = json.loads(args.report.read_text("utf-8"))
        if before["commit"] != report["commit"]:
            sys.exit(f"{args.report} is a recording of commit {before['commit']}: name another file")
        report["mutants"] = before["mutants"]
    done = {Mutant(**row["mutant"]) for row in report["mutants"]}

    def work(session: Session) -> None:
        for module in MODULES:
            mutants = [mutant for mutant in found if mutant.module == module]
            unreached = {mutant.name for mutant in mutants if mutant.name not in tests}
            unloaded = {m.name for m in mutants if not session.loaded[found[m].place]} - unreached
            report["left out"][module] = {"not reached": sorted(unreached), "not loaded": sorted(unloaded)}
            for mutant in sample([m for m in mutants if m.name not in unreached | unloaded], module):
                if mutant not in done:
                    row = {"mutant": asdict(mutant), **session.try_mutant(mutant, found[mutant])}
                    report["mutants"].append(row)
                    write_report(report, args.report)
                    session.say(f"{len(report['mutants'])} {module}: {row}")

    run_tests(tests, work, args.cap)
    say_counts((Mutant(**row["mutant"]).module, row["result"]) for row in report["mutants"])
    return 0


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the report with one mutant a line, in one step."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in report["mutants"])
    head = json.dumps({**report, "mutants": []}).removesuffix("]}")
    path.with_suffix(".part").write_text(f"{head}\n{rows}\n]}}\n", encoding="utf-8")
    path.with_suffix(".part").replace(path)


def compare(args: argparse.Namespace) -> int:
    """Run the mutants that were killed before; return 1 when some are not killed now."""
    rows = [row for row in json.loads(args.report.read_text("utf-8"))["mutants"] if row["result"] == "killed"]
    killers, found = {Mutant(**row["mutant"]): row["by"] for row in rows}, all_mutants()
    tests = read_tests(args.reach, args.times, {mutant.name for mutant in killers})
    for mutant, test in killers.items():
        tests[mutant.name] = [*tests.get(mutant.name, ()), test]
    results: list[tuple[str, str]] = []

    def work(session: Session) -> None:
        for mutant, test in killers.items():
            edit = found.get(mutant)
            now = session.try_mutant(mutant, edit, test)["result"] if edit else "not in the source"
            results.append((mutant.module, now))
            if now != "killed":
                session.say(f"{mutant.module}: {now}; killed before by {test}: {asdict(mutant)}")

    run_tests(tests, work, args.cap)
    say_counts(results)
    return int(any(now not in ("killed", "not in the source") for _, now in results))


def say_counts(results: Iterable[tuple[str, str]]) -> None:
    """Print how many mutants of each module have each result."""
    for (module, result), count in sorted(Counter(results).items()):
        print(f"{module}: {count} {result}")


def run_tests(tests: Mapping[str, Sequence[str]], work: Callable[[Session], None], cap_s: float) -> None:
    """Start pytest with the files of these tests in this process."""
    files = sorted({_file(test) for names in tests.values() for test in names if Path(_file(test)).is_file()})
    code = pytest.main([*OPTIONS.split(), *files], [Session(tests, work, cap_s)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(f"pytest ended with {code!r}")


def pytest_configure() -> None:
    """Record what tests reach, where this file is a plugin of pytest: each function begins with a line that notes it."""
    original = SourceFileLoader.get_code

    def get_code(loader: Any, fullname: str) -> CodeType | None:
        path = Path(loader.get_filename(fullname))
        file = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if file not in FILES:
            return original(loader, fullname)
        tree = ast.parse(path.read_text("utf-8"))
        for name, function in functions_in(tree):
            note = f"__import__('scripts.mutants').mutants.CALLED.add({f'{file}:{name}'!r})"
            function.body[:0] = ast.parse(note).body
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Attach the functions that were called in this phase to its report, which workers of pytest-xdist send."""
    report: Any = yield
    report.reached = sorted(CALLED)
    CALLED.clear()
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add the functions of one phase to those of its test."""
    REACHED[report.nodeid].update(getattr(report, "reached", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the map."""
    if not hasattr(session.config, "workerinput"):
        reached = {test: sorted(functions) for test, functions in REACHED.items() if functions}
        Path(os.environ["MUTANTS_REACH"]).write_text(json.dumps(reached, indent=0), encoding="utf-8")


def main() -> int:
    """Read the command line and do what it says, in a process that has the settings that all of it needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("reach", "record", "compare"))
    parser.add_argument("report", type=Path)
    parser.add_argument("--reach", type=Path, help="the map of what tests reach")
    parser.add_argument("--times", type=Path, help="the table of processor times")
    parser.add_argument(
        "--cap", type=float, default=60.0, help="processor seconds after which no more tests start"
    )
    args, rest = parser.parse_known_args()
    if args.command == "reach":
        path = os.pathsep.join([str(ROOT), str(Path(__file__).resolve().parent.parent)])
        environment = {**os.environ, "PYTHONPATH": path, "MUTANTS_REACH": str(args.report.resolve())}
        os.execve(
            sys.executable, [sys.executable, "-m", "pytest", "-p", "scripts.mutants", *rest], environment
        )
    if rest or args.reach is None:
        parser.error(f"unknown: {' '.join(rest)}" if rest else "--reach is missing")
    if os.environ.get("PYTHONHASHSEED") != "0":
        environment = {
            **os.environ,
            **dict(each.split("=") for each in SETTINGS.split()),
            "PYTHONPATH": str(ROOT),
        }
        os.execve(sys.executable, [sys.executable, "-P", *sys.argv], environment)
    return record(args) if args.command == "record" else compare(args)


if __name__ == "__main__":
    sys.exit(main())
