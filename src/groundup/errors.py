"""The one error that people see: what happened, where, why, and what to do."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path


class UserError(ValueError):
    """Something that the person at the keyboard can put right; the command ends with exit code 2.

    `where` names a file and, if known, a line ("recipe.yaml:7"); `why` and `fix` are sentences.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def render(self) -> str:
        """Several lines for a console, without color."""
        lines = [f"Error: {_indented(self.what, 2)}"]
        for label, text in (("where:", self.where), ("why:", self.why), ("fix:", self.fix)):
            if text:
                lines.append(f"  {label:<7}{_indented(text, 9)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        """All of it, so that a log or a traceback loses nothing."""
        return self.render().removeprefix("Error: ")

    def __reduce__(self) -> tuple[object, ...]:
        """Worker processes send errors back pickled, and keywords would be lost on the way."""
        return _rebuilt, (type(self), self.what, self.where, self.why, self.fix)


def unreadable(path: str | Path, error: OSError) -> UserError:
    """What to say of a file or folder that is there and cannot be read."""
    allowed = "ask its owner for the right to read it (ls -l shows who may), or name another"
    return UserError(
        f"The {'folder' if os.path.isdir(path) else 'file'} cannot be read.",
        where=str(path),
        why=error.strerror or str(error),
        fix=allowed if isinstance(error, PermissionError) else "",
    )


def _rebuilt(kind: type[UserError], what: str, where: str, why: str, fix: str) -> UserError:
    return kind(what, where=where, why=why, fix=fix)


def _indented(text: str, columns: int) -> str:
    """Every line but the first moved right, so that a long text stays under its label."""
    first, newline, rest = text.partition("\n")
    return first + newline + textwrap.indent(rest, " " * columns)
