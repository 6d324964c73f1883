"""`builtin:python-docs`: the English prose that every Python carries, read from source without importing it."""

from __future__ import annotations

import ast
import inspect
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from groundup.data.types import Document, Origin
from groundup.errors import UserError

LEFT_OUT = frozenset(["test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"])
TOPICS = ("pydoc_data", "topics.py")


def stdlib_files() -> list[Path]:
    """Source files of the standard library, sorted by their names in it; no tests and no installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in root.rglob("*.py") if not LEFT_OUT.intersection(path.relative_to(root).parts)]
    if not files:
        raise UserError(
            "This Python has no source of its standard library.",
            where=str(root),
            fix="install Python's full package, or name a folder of text instead of builtin:python-docs",
        )
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def read_python_docs() -> Iterator[Document]:
    """The language reference's topics, then one document a module: its docstrings, each under its name."""
    for path in stdlib_files():
        try:
            with tokenize.open(path) as file:  # minds a coding line
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):  # test material and templates are no valid modules
            continue
        yield from _topics(tree, path) if path.parts[-2:] == TOPICS else _module(tree, path)


def _module(tree: ast.Module, path: Path) -> Iterator[Document]:
    pieces = list(_docstrings(tree, ""))
    if pieces:
        yield Document("\n\n".join(pieces), Origin(str(path), 1))


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[str]:
    """The docstring of a module, class or function, its name above it, then those of what it defines."""
    if text := ast.get_docstring(node):
        yield f"{name}\n{text}" if name else text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}".removeprefix("."))


def _topics(tree: ast.Module, path: Path) -> Iterator[Document]:
    """The texts of the dictionary `topics`, which `help()` shows."""
    tables = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    documents = [
        Document(inspect.cleandoc(constant.value), Origin(str(path), constant.lineno))
        for table in tables
        for constant in table.values
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    ]
    yield from _without_excerpts(documents)


def _without_excerpts(documents: list[Document]) -> Iterator[Document]:
    """Documents that are not mostly copied from longer ones: else held-out text would be known from training."""
    seen: set[str] = set()
    excerpts = set()
    for document in sorted(documents, key=lambda d: (-len(d.text), d.text)):
        paragraphs = [" ".join(paragraph.split()) for paragraph in document.text.split("\n\n")]
        known = sum(len(paragraph) for paragraph in paragraphs if paragraph in seen)
        if 2 * known > sum(map(len, paragraphs)):
            excerpts.add(document)
        seen.update(paragraphs)
    yield from (document for document in documents if document not in excerpts)
