# SPDX-License-Identifier: Apache-2.0
"""Finds every import in a source text, whether at the top, inside a function, or by name through importlib.

It reads the text and runs nothing, so what only happens on another platform is found too.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_BY_NAME = {"__import__", "import_module", "find_spec"}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of the top-level package ``name``; ``lazy`` if importing the module does not run it."""

    name: str
    line: int
    lazy: bool


def find_imports(source: str) -> list[Import]:
    """Return all imports of ``source``, in order, but those that cannot leave its own package."""
    return list(_walk(ast.parse(source), lazy=False))


def _walk(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield Import(_top(alias.name), node.lineno, lazy)
        case ast.ImportFrom(module=module, level=level):
            # A relative import cannot leave the package.
            if level == 0 and module is not None:
                yield Import(_top(module), node.lineno, lazy)
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[argument, *_]):
            if called in _BY_NAME:
                yield from (Import(_top(name), node.lineno, lazy) for name in _named(argument))
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            lazy = True
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, lazy=inside)


def _named(argument: ast.expr) -> list[str]:
    match argument:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.JoinedStr(
            values=[ast.FormattedValue(value=ast.Name(id="__name__")), ast.Constant(value=rest), *_]
        ):
            return [] if str(rest).startswith(".") else ["<computed>"]
        case _:
            # A name that is computed cannot be judged from the text, hence is nothing to allow.
            return ["<computed>"]


def _top(module: str) -> str:
    return module.partition(".")[0]
