"""The faults that scripts/mutants.py puts into functions: operators, constants, conditions, results and statements."""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path
from types import CodeType
from typing import Any

MODULES = {
    "grading": tuple(f"runners/scoring/{name}.py" for name in ("scores", "correctness", "free_text")),
    "refusal": ("rag/grounding/refusal.py",),
    "citations": ("rag/grounding/citations.py", "rag/grounding/agreement.py"),
    "statistics": ("rag/evaluation/statistics.py",),
    "plan reading": ("runners/plan/plan_source.py", "runners/plan/plan_text.py"),
    "change detection": ("rag/indexing/changes.py", "rag/indexing/delta.py", "runners/recheck/inputs.py"),
}
FILES = tuple(file for files in MODULES.values() for file in files)
ROOT = Path.cwd()
SEED, SAMPLE = 0, 100
ARITHMETIC = {
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "FloorDiv": "Mult", "Mod": "Mult", "Pow": "Mult",
    "BitOr": "BitAnd", "BitAnd": "BitOr",
}  # fmt: skip
BOUNDARY = {"Lt": "LtE", "LtE": "Lt", "Gt": "GtE", "GtE": "Gt"}
OPPOSITE = {
    "Lt": "GtE", "LtE": "Gt", "Gt": "LtE", "GtE": "Lt", "Eq": "NotEq", "NotEq": "Eq", "Is": "IsNot", "IsNot": "Is",
    "In": "NotIn", "NotIn": "In",
}  # fmt: skip
COMPARISONS = {"boundary": BOUNDARY, "comparison": OPPOSITE}
CALLS = {"any": "all", "all": "any", "min": "max", "max": "min"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """Where a fault is, in words that stay the same while other lines of the file change.

    ``occurrence`` counts the earlier lines of the function with the same text, and ``ordinal`` the earlier places of the
    line that allow the same kind.
    """

    file: str
    function: str
    kind: str
    line: str
    occurrence: int
    ordinal: int

    @property
    def name(self) -> str:
        """The function as the map names it."""
        return f"{self.file}:{self.function}"

    @property
    def module(self) -> str:
        """Which of the six modules it is in."""
        return next(module for module, files in MODULES.items() if self.file in files)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The replacement of one node of a module's tree."""

    tree: ast.Module
    place: tuple[str, int, str]
    """What identifies the function's code."""
    old: ast.AST
    new: ast.AST

    def code(self) -> CodeType:
        """Return the code of the function with the fault."""
        _Replace(self.old, self.new).visit(self.tree)
        try:
            module = compile(self.tree, self.place[0], "exec", dont_inherit=True)
        finally:
            _Replace(self.new, self.old).visit(self.tree)
        return next(code for code in _codes(module) if place_of(code) == self.place)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def place_of(code: CodeType) -> tuple[str, int, str]:
    return code.co_filename, code.co_firstlineno, code.co_name


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def all_mutants() -> dict[Mutant, Edit]:
    """Return all mutants of the six modules, in the order of their text."""
    found: dict[Mutant, Edit] = {}
    for file in FILES:
        text = (ROOT / file).read_text("utf-8")
        tree, lines = ast.parse(text), [line.strip() for line in text.splitlines()]
        for function, top in functions_in(tree):
            first = min([top.lineno, *(each.lineno for each in top.decorator_list)])
            seen: Counter[tuple[int, str]] = Counter()
            for node in _nodes(top):
                for kind, new in replacements(node):
                    at = next(each.lineno for each in ast.walk(node) if isinstance(each, ast.expr | ast.stmt))
                    line, ordinal = lines[at - 1], seen[at, kind]
                    occurrence = lines[top.lineno - 1 : at - 1].count(line)
                    seen[at, kind] += 1
                    ast.fix_missing_locations(ast.copy_location(new, node))
                    mutant = Mutant(
                        file=file, function=function, kind=kind, line=line, occurrence=occurrence, ordinal=ordinal
                    )  # fmt: skip
                    place = (str(ROOT / file), first, top.name)
                    found[mutant] = Edit(tree=tree, place=place, old=node, new=new)
    return found


def functions_in(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions that are in no other function, with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions_in(node, f"{within}{node.name}.")


def _nodes(holder: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body: no docstrings, parameters, annotations or decorators."""
    for field, value in ast.iter_fields(holder):
        for node in value if isinstance(value, list) else [value]:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            beside = field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.arguments)
            if isinstance(node, ast.AST) and not docstring and not beside:
                yield node
                yield from _nodes(node)


def replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may stand in a node's place: the kind, with its detail behind a colon, and the new node."""
    match node:
        case ast.Compare(ops=ops):
            for (at, op), (kind, table) in product(enumerate(map(_name, ops)), COMPARISONS.items()):
                if op in table:
                    changed = [*ops[:at], getattr(ast, table[op])(), *ops[at + 1 :]]
                    yield f"{kind}: {op} to {table[op]}", _with(node, ops=changed)
        case ast.BoolOp(op=op, values=values):
            yield "and/or", _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                less = _with(node, values=rest) if len(rest) > 1 else copy.copy(rest[0])
                yield f"operand removed: {at}", less
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "sign or not removed", copy.copy(operand)
        case ast.Constant(value=bool(value)):
            yield "constant: bool", ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield "constant: number", ast.Constant(value + 1)
        case ast.Constant(value=str(value)):
            yield "text: emptied" if value else "text: filled", ast.Constant("" if value else "mutant")
        case ast.Call(func=ast.Name(id=name) as called) if name in CALLS:
            yield f"call: {name}", _with(node, func=_with(called, id=CALLS[name]))
        case ast.comprehension(ifs=[_, *rest]):
            yield "condition removed", _with(node, ifs=rest)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "condition negated", _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr() as value) if getattr(value, "value", value) is not None:
            yield "returns None", ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield "statement removed", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement removed", ast.Pass()
    if isinstance(node, ast.BinOp | ast.AugAssign) and (op := _name(node.op)) in ARITHMETIC:
        yield f"arithmetic: {op}", _with(node, op=getattr(ast, ARITHMETIC[op])())


def _name(node: ast.AST) -> str:
    return type(node).__name__


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def sample(mutants: Iterable[Mutant], module: str) -> list[Mutant]:
    """Draw from one module, as evenly over the kinds as there are mutants of them."""
    by_kind: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        by_kind[mutant.kind.partition(":")[0]].append(mutant)
    rng = random.Random(f"{SEED} {module}")
    for kind in sorted(by_kind):
        rng.shuffle(by_kind[kind])
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    return [mutant for turn in turns for mutant in turn if mutant][:SAMPLE]
