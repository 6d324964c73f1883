"""A run's folder, which holds everything that a recipe made:

runs/demo/{recipe.yaml,environment.json,run.log,report.html,report.md,report_files/,models/,downloads/,
reference_logps/,<stage>/…}
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundup.errors import UserError
from groundup.store import atomic
from groundup.store.stage import Stage

_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = frozenset(
    {
        *("models", "downloads", "reference_logps", "report_files", "report.html", "report.md"),
        *("recipe.yaml", "environment.json", "run.log"),
    }
)


@dataclass(frozen=True)
class Run:
    """A run's folder. Made with `Run.open`, which checks it."""

    root: Path

    @classmethod
    def open(cls, path: Path | str, create: bool = True) -> Run:
        """Opens a run to work in it, making the folder and its parents; or, with `create=False`, only to read it.

        Raises:
            UserError: the folder cannot be made or written, the disk is full, or there is no run to read.
        """
        root = Path(path).expanduser()
        if create:
            _make_writable(root)
        elif not _is_run(root):
            raise _no_run(root)
        return cls(root)

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def recipe(self) -> Path:
        """The recipe with every setting resolved."""
        return self.root / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def models(self) -> Path:
        """The folder of base models that were converted for this run."""
        return self.root / "models"

    @property
    def downloads(self) -> Path:
        """What was downloaded for this run because the usual cache was no place for it."""
        return self.root / "downloads"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def report_md(self) -> Path:
        return self.root / "report.md"

    @property
    def reference_logps(self) -> Path:
        """The folder of what reference models said of rows, by content; stages share it."""
        return self.root / "reference_logps"

    @property
    def report_files(self) -> Path:
        """The plots that `report_md` shows."""
        return self.root / "report_files"

    def stage(self, name: str) -> Stage:
        """The folder of one stage, whether or not it exists.

        Raises:
            UserError: the name is none that a folder can have on every system, or the run keeps it for itself.
        """
        if not _STAGE_NAME.fullmatch(name) or name.endswith("."):
            why = "Letters, digits, dots, dashes and underscores are allowed, a letter or digit first."
            raise UserError(
                f"{name!r} cannot be a stage's name.", why=why, fix="Rename the stage in the recipe."
            )
        if name.casefold() in _RESERVED:
            why = "The run folder keeps that name for itself."
            raise UserError(
                f"{name!r} cannot be a stage's name.", why=why, fix="Rename the stage in the recipe."
            )
        return Stage(self.root / name)

    def stages(self) -> list[Stage]:
        """The stages that were begun, in the recipe's order; one that is no longer in the recipe comes last."""
        begun = {
            path.parent.name
            for mark in ("started.json", "manifest.json")
            for path in self.root.glob(f"*/{mark}")
        }
        order = [name for name in self.planned_stages() if name in begun]
        return [Stage(self.root / name) for name in (*order, *sorted(begun.difference(order)))]

    def planned_stages(self) -> dict[str, dict[str, Any]]:
        """The recipe's stages in order, each with its settings; empty where no recipe was written yet."""
        return dict(self.read_recipe().get("stages", {}))

    def read_recipe(self) -> dict[str, Any]:
        """The resolved recipe as plain data; empty where none was written yet."""
        if not self.recipe.exists():
            return {}
        try:
            read = YAML(typ="safe", pure=True).load(self.recipe.read_text(encoding="utf-8"))
        except (YAMLError, ValueError, OSError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(read or {}, dict):
            raise self._unreadable("It holds no settings.")
        return read or {}

    def _unreadable(self, why: str) -> UserError:
        fix = "Run the recipe again into this folder; what is finished is reused."
        return UserError("A run's recipe cannot be read.", where=str(self.recipe), why=why, fix=fix)


def _is_run(root: Path) -> bool:
    return (
        (root / "recipe.yaml").is_file()
        or any(root.glob("*/started.json"))
        or any(root.glob("*/manifest.json"))
    )


def _no_run(root: Path) -> UserError:
    places = (root, root / "runs", root.parent, Path("runs"))
    folders = {path for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()}
    nearby = sorted(
        (path for path in folders if _is_run(path)), key=lambda path: _unlikeness(path.name, root.name)
    )
    fix = f"Runs nearby: {', '.join(map(str, nearby[:8]))}" if nearby else "Make one with: groundup run demo"
    why = "That folder holds no run." if root.is_dir() else "There is no such folder."
    return UserError("This is not a run.", where=str(root), why=why, fix=fix)


def _unlikeness(name: str, wanted: str) -> tuple[float, str]:
    return -difflib.SequenceMatcher(None, name, wanted).ratio(), name


def _make_writable(root: Path) -> None:
    """Makes the folder and writes into it; whatever it made is gone again where that fails."""
    made: list[Path] = []
    probe = atomic.temporary_beside(root / "probe")
    try:
        with atomic.explained(root, "The run folder cannot be written."):
            if root.is_file():
                raise NotADirectoryError(errno.ENOTDIR, "")
            made += [folder for folder in (root, *root.parents) if not folder.exists()]
            root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(bytes(4096))
            probe.unlink()
    except UserError:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise
