"""The Python interface: docstring examples run, and results have an HTML form for notebooks."""

from __future__ import annotations

import ast
import doctest
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import advisor
import rag
import runners
import tunewise
from rag.errors import BadInput, UsageProblem

LONGEST = 10
"""Lines of an example."""
HOSTILE = "<script>alert(1)</script> \x1b[31m & [a](javascript:b)"


def write_corpus(folder: Path) -> None:
    """Write six documents and twelve questions about them."""
    (folder / "documents").mkdir(parents=True)
    for n in range(6):
        text = f"# Pier {n}\n\nPier {n} has {n + 3} berths for visitors.\n"
        (folder / "documents" / f"pier{n}.md").write_text(text, "utf-8")
    rows = [
        {
            "question": f"How many berths has pier {n % 6}{'?' * (1 + n // 6)}",
            "answers": [f"{n % 6 + 3}"],
            "doc_id": f"pier{n % 6}.md",
        }
        for n in range(12)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def run_example(module: ModuleType, names: dict[str, Any]) -> None:
    """Run the example in a module's docstring."""
    test = doctest.DocTestParser().get_doctest(
        module.__doc__ or "", names, module.__name__, module.__file__, 0
    )
    lines = sum(each.source.count("\n") + each.want.count("\n") for each in test.examples)
    assert 4 <= lines <= LONGEST
    output: list[str] = []
    result = doctest.DocTestRunner().run(test, out=output.append, clear_globs=False)
    assert result.failed == 0, "".join(output)
    names |= test.globs


class Elements(HTMLParser):
    """The names of all elements, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the name; an attribute other than a style could do something."""
        assert {name for name, _ in attrs} <= {"style"}
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


PLAIN = {"div", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "small", "br"}


@pytest.mark.real
def test_docstring_examples_run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From answers to a cited answer, as the docstrings say; the embedder is the real one, the model a tiny one."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    names: dict[str, Any] = {"MODEL": str(tiny.folder)}
    run_example(tunewise, names)
    assert tunewise.export(names["run"], "index").files
    run_example(advisor, names)
    from runners.plan.schema import write_plan

    plan = names["advice"].plan("again")
    write_plan(plan, tmp_path / "plan.yaml")
    run_example(runners, names)
    for shown in ("advice", "run", "report", "answer"):
        page = Elements(names[shown]._repr_html_())
        assert page.names <= PLAIN
        assert "rag" in page.text
    assert names["report"]._repr_markdown_() == (tmp_path / "runs/mine/report.md").read_text("utf-8")
    assert advisor.Report.read("runs/mine").data == names["report"].data
    assert repr(names["run"]) == "Run('runs/again', choice='rag', arms=['prompting', 'rag'])"
    for name in ("Prüf 1", "../../x"):
        with pytest.raises(BadInput, match="name"):
            names["advice"].plan(name)
    with pytest.raises(UsageProblem, match="exists"):
        runners.run("plan.yaml", "runs/again")
    with pytest.raises(BadInput, match="no arm 'x'"):
        names["run"].ask("Well?", arm="x")


@pytest.mark.real
def test_readme_example_runs(
    tiny: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the README's block, except for the model: a tiny one, whose answers cite nothing, so its arm is named."""
    page = (root / "README.md").read_text("utf-8").split("In Python:")[1]
    code = page.split("```python\n")[1].split("```")[0]
    assert 5 <= len(code.splitlines()) <= LONGEST
    assert '"must_cite": True' in code
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    (tmp_path / "documents").rename(tmp_path / "docs")
    assert 'open?")' in code
    code = code.replace('open?")', 'open?", "rag")')
    exec(code.replace('"must_cite": True', f'"must_cite": True, "model": {str(tiny.folder)!r}'), {})
    assert capsys.readouterr().out.startswith("rag ")
    assert (tmp_path / "runs/mine/report.html").is_file()


def test_notebook_html_escapes_user_text() -> None:
    """Markup, escapes and links in an answer, a citation and a report are shown as text."""
    from rag.types import Citation
    from runners.arms.answer import Answer
    from runners.data.questions import Question
    from runners.inference.types import Completion
    from tests.support.reports import report_from

    cited = Citation(
        n=1,
        doc=HOSTILE,
        title=HOSTILE,
        page=None,
        line_start=1,
        line_end=1,
        char_start=0,
        char_end=5,
        quote=HOSTILE,
    )
    words = Completion(HOSTILE, 1, 1, 0.1, "stop")
    answer = Answer(Question("q", HOSTILE), HOSTILE, HOSTILE, (cited,), False, None, (), words, arm=HOSTILE)
    body = {
        "verdict": {"text": HOSTILE, "winner": HOSTILE},
        "warnings": [HOSTILE],
        "arms": [{"arm": HOSTILE}],
    }
    report = advisor.Report(Path("run"), report_from(body))
    for shown in (answer, report):
        html = shown._repr_html_()
        page = Elements(html)
        assert page.names <= PLAIN
        assert "<script>alert(1)</script>" in page.text
        assert "\x1b" not in html


def test_recommendation_without_files_makes_no_plan() -> None:
    advice = advisor.recommend({"task_needs_facts": "new", "must_cite": "yes"})
    assert advice.choice == "rag"
    assert "rag" in Elements(advice._repr_html_()).text
    with pytest.raises(UsageProblem, match="nothing to run"):
        advice.plan()
    with pytest.raises(UsageProblem, match="profile alone"):
        advisor.recommend(advice.profile).plan()
    with pytest.raises(BadInput, match="unknown question 'must_site'"):
        advisor.recommend({"must_site": True})
    with pytest.raises(BadInput, match="unknown model"):
        advisor.recommend({"model": "smollm3-135m-instruct-x"})


@pytest.mark.parametrize("package", [tunewise, advisor, runners, rag], ids=lambda p: p.__name__)
def test_public_names_exist_and_are_typed(package: ModuleType, root: Path) -> None:
    """Every name of ``__all__`` can be had, is documented, and is imported where a type checker looks."""
    tree = ast.parse(Path(str(package.__file__)).read_text("utf-8"))
    checked = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(package.__all__)
    code = f"import {package.__name__} as p; print([bool(getattr(p, n).__doc__) for n in p.__all__])"
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ast.literal_eval(told.stdout) == [True] * len(package.__all__)
    assert package is not tunewise or set(package.__all__) < set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize(
    "order", ["runners.trial.execute, runners.inference.weights", "runners.runs.run, advisor.advice"]
)
def test_no_module_shadows_a_public_name(root: Path, order: str) -> None:
    """Importing a submodule sets it on its package: none may have the name of a public function."""
    names = "callable(runners.run), callable(runners.load), callable(advisor.recommend)"
    code = f"import {order}; import advisor, runners; print({names})"
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True"] * 3
    for package in (tunewise, advisor, runners, rag):
        folder = Path(str(package.__file__)).parent
        assert not {
            name for name in package.__all__ if (folder / f"{name}.py").exists() or (folder / name).is_dir()
        }
