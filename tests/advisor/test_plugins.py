"""Plug-in packages: one installed with pip adds a rule, a method, a loader and a store; broken ones are
rejected.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import advisor
from advisor.methods import registry as methods
from advisor.rules import registry as rules
from rag.errors import BadInput
from rag.loading import registry as loaders
from rag.plugins import PluginGroup, declared_plugins
from rag.stores import base as stores

Tunewise = Callable[..., subprocess.CompletedProcess[str]]
PACKAGES = Path(advisor.__file__).resolve().parent.parent
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-tunewise"
version = "1.2"

[project.entry-points."tunewise.rules"]
ACME001 = "acme_tunewise:ACME001"

[project.entry-points."tunewise.methods"]
terse = "acme_tunewise:Terse"

[project.entry-points."tunewise.loaders"]
acme = "acme_tunewise:LOADER"

[project.entry-points."tunewise.stores"]
acme-vectors = "acme_tunewise:AcmeVectors"
"""
MODULE = '''
"""What one company adds to tunewise."""

import sys

from advisor.methods.base import Method, inference_estimate
from advisor.rules.base import Need, Rule
from rag.loading.base import Loader, make_document, paragraphs
from rag.stores.exact import ExactStore
from runners.plan.schema import EvaluateStep


class ACME001(Rule):
    """Documents of ours are best read with one example beside them.

    Does not apply without documents.
    """

    family = "acme"
    need = Need.SHOW
    weight = 9.0

    def applies(self, profile):
        return "there are documents" if profile.documents else ""


class Terse(Method):
    """Passages from the index and one example of a terse reply."""

    name = "terse"
    serves = {Need.SHOW: 1.0, Need.CITE: 1.0, Need.FACTS: 1.0, Need.FRESH: 1.0, Need.GROUND: 1.0}

    def estimate(self, p):
        return inference_estimate(p, "rag", 60.0, "one example in the prompt")

    def steps(self, p, drafting):
        return (EvaluateStep(arm="terse", retrieval=True, shots=1),)


def read(id, data):
    """Read a text whose first line is a mark and a title; never outside the process that parses documents."""
    assert sys.modules["__main__"].__spec__.name == "rag.loading.worker"
    mark, _, text = data.decode("utf-8").partition("\\n")
    yield make_document(id, mark.removeprefix("PK\\x03\\x04ACME "), text, paragraphs(text), "acme")


LOADER = Loader("acme", (".acme",), read)


class AcmeVectors(ExactStore):
    """Exact search under a name of our own."""
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed the package."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "source").mkdir()
    (folder / "source" / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    (folder / "source" / "acme_tunewise.py").write_text(MODULE, "utf-8")
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, "--target", folder / "site", folder / "source"],
        check=True,
    )
    return folder / "site"


@pytest.fixture(scope="module")
def with_plugin(installed: Path, root: Path) -> Tunewise:
    """Run a verb in a process that finds the package, with tiny models in the cache."""
    return lambda *arguments, cwd, code=0: run(installed, root, *arguments, cwd=cwd, code=code)


def run(
    site: Path, root: Path, *arguments: object, cwd: Path, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a verb with a folder of packages on the path; it must end with the exit code."""
    cache = site.parent / "cache"  # a copy, since runs add to it
    shutil.copytree(root / "tests" / "versions" / "0.2.0" / "cache", cache, dirs_exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(PACKAGES), str(site))),
        "TUNEWISE_CACHE": str(cache),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    command = [sys.executable, "-P", "-m", "advisor", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def plugin_task(tmp_path: Path, root: Path) -> Path:
    """A folder of documents, one of them in the plug-in's format, with examples and questions."""
    fixture = root / "tests" / "versions" / "0.2.0"
    shutil.copytree(fixture / "documents", tmp_path / "plugin_task" / "documents")
    for name in ("examples.jsonl", "questions.jsonl", "prompt.txt"):
        shutil.copy(fixture / name, tmp_path / "plugin_task")
    text = "PK\x03\x04ACME Lamps\nThe pier has nine lamps.\n\nThe lamps burn whale oil.\n"
    (tmp_path / "plugin_task" / "documents" / "lamps.acme").write_text(text, "utf-8")
    return tmp_path / "plugin_task"


def test_doctor_and_explain_name_the_plugin_package(with_plugin: Tunewise, tmp_path: Path) -> None:
    doctor_report = json.loads(with_plugin("doctor", "--json", cwd=tmp_path).stdout)
    assert [(row["group"], row["name"], row["package"]) for row in doctor_report["plugins"]] == [
        ("tunewise.loaders", "acme", "acme-tunewise 1.2"),
        ("tunewise.methods", "terse", "acme-tunewise 1.2"),
        ("tunewise.rules", "ACME001", "acme-tunewise 1.2"),
        ("tunewise.stores", "acme-vectors", "acme-tunewise 1.2"),
    ]
    assert "terse" in {row["method"] for row in doctor_report["methods"]}
    assert not [line for line in doctor_report["warnings"] if "plug-in" in line]
    assert "acme-tunewise 1.2" in with_plugin("doctor", cwd=tmp_path).stdout
    assert "acme-vectors" in with_plugin("explain", cwd=tmp_path).stdout
    for name in ("ACME001", "terse"):
        page = json.loads(with_plugin("explain", name, "--json", cwd=tmp_path).stdout)
        assert page["plugin"] == "acme-tunewise 1.2"
    assert "from the plug-in acme-tunewise 1.2" in with_plugin("explain", "acme001", cwd=tmp_path).stdout
    assert "plugin" not in json.loads(with_plugin("explain", "KN001", "--json", cwd=tmp_path).stdout)


def test_plugin_rule_and_method_decide_a_plan_that_runs(with_plugin: Tunewise, plugin_task: Path) -> None:
    """The rule is among the reasons, the method is chosen, and its arm is measured by the existing runners."""
    flags = ("--documents", "documents", "--examples", "examples.jsonl", "--questions", "questions.jsonl")
    answers = ("--set", "task_needs_facts=new", "--set", "must_cite=yes", "--set", "behaviour_gap=none")
    done = with_plugin("plan", "--yes", *flags, *answers, "--prompt", "prompt.txt", "--json", cwd=plugin_task)
    advice = json.loads(done.stdout)
    assert advice["choice"] == "terse"
    assert "ACME001" in {reason["rule"] for reason in advice["ranked"][0]["reasons"]}
    write_small_plan(plugin_task / "plan.yaml", ("prompting", "terse"))
    # neither of the two arms names a source, which the answers demand: no arm can be used, exit code 5
    done = with_plugin("run", "plan.yaml", "--out", "run", "--json", cwd=plugin_task, code=5)
    report = json.loads(done.stdout)
    assert report["verdict"]["use"] is None
    assert {arm["arm"] for arm in report["arms"]} == {"prompting", "terse"}


def write_small_plan(path: Path, arms: tuple[str, ...]) -> None:
    """Leave only these arms in a plan, with few questions and short answers."""
    import yaml

    body: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    assert body["choice"] == "terse"
    body["data"] |= {"max_dev": 3, "max_test": 3}
    body |= {"max_new_tokens": 6, "gate": {"must_beat": []}}
    body["steps"] = [step for step in body["steps"] if step["kind"] == "index" or step["arm"] in arms]
    path.write_text(yaml.safe_dump(body, sort_keys=False), "utf-8")


def test_plugin_loader_and_store_are_used_by_an_index(
    with_plugin: Tunewise, plugin_task: Path, root: Path, tmp_path: Path
) -> None:
    """A file that begins like a zip goes to the plug-in that reads its ending; without the store nothing opens."""
    build = ("index", "build", "index", "--documents", "documents", "--store", "acme-vectors", "--json")
    assert json.loads(with_plugin(*build, cwd=plugin_task).stdout)["store"] == "acme-vectors"
    search = ("index", "search", "index", "How many lamps has the pier?", "--where", "media=acme", "--json")
    hits = json.loads(with_plugin(*search, cwd=plugin_task).stdout)["hits"]
    assert {hit["doc"] for hit in hits} == {"lamps.acme"}
    refused = run(tmp_path / "nothing", root, "index", "check", "index", cwd=plugin_task, code=3)
    assert "unknown vector store 'acme-vectors'" in refused.stderr


GROUPS: dict[str, PluginGroup[Any]] = {
    "rules": rules.RULE_PLUGINS,
    "methods": methods.METHOD_PLUGINS,
    "loaders": loaders.PLUGINS,
    "stores": stores.PLUGINS,
}
BROKEN = [
    ("rules", "ACME002", "missing:ACME002", "ModuleNotFoundError: No module named 'missing'"),
    ("rules", "KN001", "broken:Other", "its name is that of a built-in"),
    ("rules", "ACME003", "broken:Other", "its code is 'Other', not the name of the entry point"),
    ("rules", "Other", "broken:Other", "its code is not capital letters and three digits"),
    ("methods", "rag", "broken:Other", "its name is that of a built-in"),
    ("methods", "naive-stack", "broken:Other", "its name is that of a built-in"),
    ("methods", "other", "broken:Other", "not a subclass of advisor.methods.base.Method"),
    ("loaders", "pdf", "broken:Other", "its name is that of a built-in"),
    ("loaders", "mine", "broken:MARKDOWN", ".md is read by the built-in loader 'markdown'"),
    ("loaders", "raising", "raising:LOADER", "ZeroDivisionError: division by zero"),
    ("stores", "flat", "broken:Other", "its name is that of a built-in"),
    ("stores", "auto", "broken:Other", "its name is that of a built-in"),
    ("stores", "mine", "broken:Other", "not a class with ids, add"),
]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Return a function that puts a folder of packages on this process's path, with the plug-in cache
    cleared.
    """

    def use(site: Path) -> None:
        monkeypatch.syspath_prepend(site)
        for name in ("broken", "raising"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        declared_plugins.cache_clear()

    yield use
    declared_plugins.cache_clear()


@pytest.mark.parametrize(("kind", "name", "value", "reason"), BROKEN)
def test_unusable_plugin_error_names_its_package(
    tmp_path: Path, fresh: Callable[[Path], None], kind: str, name: str, value: str, reason: str
) -> None:
    fresh(write_package(tmp_path / "site", kind, name, value))
    group = PluginGroup(GROUPS[kind].name, GROUPS[kind].builtin, GROUPS[kind].check)
    with pytest.raises(BadInput) as refused:
        group.all  # noqa: B018
    begins = f"the plug-in {name!r} (tunewise.{kind}) of broken-tunewise 0.1 cannot be used: {reason}"
    assert refused.value.message.startswith(begins)
    assert "\n" not in refused.value.message
    assert refused.value.exit_code == 3
    assert "pip uninstall broken-tunewise" in refused.value.hint
    assert group.problems() == [str(refused.value)]


def test_plugin_name_of_two_packages_is_rejected(tmp_path: Path, fresh: Callable[[Path], None]) -> None:
    site = write_package(tmp_path / "site", "rules", "ACME004", "broken:Other")
    twin = shutil.copytree(site / "broken_tunewise-0.1.dist-info", site / "twin_tunewise-0.1.dist-info")
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: twin-tunewise\nVersion: 0.1\n", "utf-8")
    fresh(site)
    (problem,) = PluginGroup(
        rules.RULE_PLUGINS.name, rules.RULE_PLUGINS.builtin, rules.RULE_PLUGINS.check
    ).problems()
    assert "of twin-tunewise 0.1 cannot be used: broken-tunewise 0.1 gives the same name" in problem


def test_broken_plugin_exits_3_and_doctor_warns(tmp_path: Path, root: Path) -> None:
    site = write_package(tmp_path / "site", "rules", "ACME002", "missing:ACME002")
    refused = run(site, root, "explain", "KN001", cwd=tmp_path, code=3).stderr.strip().splitlines()
    assert "ACME002" in refused[-2]
    assert "pip uninstall broken-tunewise" in refused[-1]
    doctor_report = json.loads(run(site, root, "doctor", "--json", cwd=tmp_path).stdout)
    assert [line for line in doctor_report["warnings"] if "No module named 'missing'" in line]


def write_package(site: Path, group: str, name: str, value: str) -> Path:
    """Write an installed package with one entry point; return the folder it is in."""
    metadata = site / "broken_tunewise-0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-tunewise\nVersion: 0.1\n", "utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[tunewise.{group}]\n{name} = {value}\n", "utf-8")
    (site / "raising.py").write_text("1 / 0\n", "utf-8")
    (site / "broken.py").write_text(
        "from advisor.rules.base import Rule\nfrom rag.loading.base import Loader\n"
        "class Other(Rule):\n    '''A rule.'''\n    family = 'other'\n"
        "MARKDOWN = Loader('mine', ('.md',), lambda id, data: [])\n",
        "utf-8",
    )
    return site


def test_help_reads_no_entry_points(tmp_path: Path, root: Path) -> None:
    """An unusable plug-in does not affect --help: entry points are read when a command needs them."""
    site = write_package(tmp_path / "site", "rules", "KN001", "missing:KN001")
    code = (
        "import importlib.metadata as m, sys\n"
        "def refuse(*a, **k): raise SystemExit('entry points were read')\n"
        "m.entry_points = refuse\nfrom advisor import cli\ncli.main(['--help'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PACKAGES), str(site)))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
