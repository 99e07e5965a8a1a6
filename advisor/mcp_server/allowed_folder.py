"""The folder that the server may read: every path of a call is resolved in it, and refused outside of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from advisor.questionnaire.answers import names_a_path
from rag.errors import BadInput, UsageProblem
from runners.plan.steps import PlanModel

if TYPE_CHECKING:
    from runners.plan.schema import Plan

Value = TypeVar("Value")


def plan_values(part: Any, kind: type[Value], key: str = "") -> Iterator[tuple[str, Value]]:
    """Yield every value of a type in a plan with its dotted key, in whatever step or list it is."""
    if isinstance(part, kind):
        yield key, part
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(part, BaseModel):
        inner = ((f"{key}.{name}".lstrip("."), getattr(part, name)) for name in type(part).model_fields)
    elif isinstance(part, Mapping):
        inner = ((f"{key}.{name}", value) for name, value in part.items())
    elif isinstance(part, list | tuple):
        inner = ((f"{key}[{number}]", value) for number, value in enumerate(part))
    for name, value in inner:
        yield from plan_values(value, kind, name)


@dataclass(frozen=True, slots=True)
class AllowedFolder:
    """A folder with links followed; what a call names must be below it, with links followed as well."""

    root: Path

    @classmethod
    def of(cls, folder: Path) -> AllowedFolder:
        """Return the allowed folder at a path; UsageProblem for a missing one, and for the top of the file system."""
        root = folder.expanduser().resolve()
        if not root.is_dir():
            raise UsageProblem(f"{folder} is no folder", "name the folder of your project with --root")
        if root == Path(root.anchor):
            raise UsageProblem(
                f"{root} is the whole file system: the server reads one project's folder",
                "name that folder with --root, or let the client start the server in it",
            )
        return cls(root)

    def path(self, name: str, what: str) -> Path:
        """Return the path that a call names, absolute and with links followed; it need not exist.

        Args:
            name: the path, relative to the folder or absolute.
            what: the argument, for the message.

        Raises:
            BadInput: it is outside of the folder, also by a link or `..`, or it is a URL or empty.
        """
        if "://" in name:
            raise BadInput(f"{what} {name}: the server reads folders of this machine, no URL", self._hint())
        if not name.strip() or "\0" in name:
            raise BadInput(f"{what} is no path", self._hint())
        try:
            path = (self.root / Path(name).expanduser()).resolve()
        except (OSError, RuntimeError) as error:
            raise BadInput(f"{what} {name} cannot be resolved: {error}", self._hint()) from None
        if not path.is_relative_to(self.root):
            raise BadInput(f"{what} {name} is outside of the folder that this server may read", self._hint())
        return path

    def existing(self, name: str, what: str) -> Path:
        """Return the path of something that exists; BadInput when it does not, or as of :meth:`path`."""
        path = self.path(name, what)
        if not path.exists():
            raise BadInput(f"{what} {name} does not exist", self._hint())
        return path

    def model(self, name: str, what: str = "model") -> str:
        """Return a model's name as it is, and its path when it names a folder; BadInput for one outside."""
        if "://" in name or (not names_a_path(str(self.root / name)) and not names_a_path(name)):
            return name
        return str(self.path(name, what))

    def require_files(self, named: Iterable[tuple[str, Path | str | None]], source: str) -> None:
        """Raise BadInput when a plan or an answers file names data outside of the folder.

        Args:
            named: key and path of each; None where there is none.
            source: the file that names them.
        """
        for key, name in named:
            if name is not None:
                self.path(str(name), f"{source}: {key}")

    def require_plan(self, plan: Plan, source: str) -> None:
        """Raise BadInput when a plan names a file or the folder of a model outside of the folder, whatever key names it."""
        self.require_files(plan_values(plan, Path), source)
        self.require_models(plan, source)

    def require_models(self, plan: Plan, source: str) -> None:
        """Raise BadInput when a plan names the folder of a model outside of the folder."""
        for key, wanted in plan_values(plan, PlanModel):
            self.model(wanted.name, f"{source}: {key}")

    def shown(self, path: Path) -> str:
        """Return a path inside the folder, relative to it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _hint(self) -> str:
        return f"paths are relative to {self.root}; another folder: tunewise mcp --root DIR"
