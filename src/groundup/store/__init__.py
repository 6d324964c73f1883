"""The run folder: the only room that names paths in it. Whatever is written is whole or absent."""

from groundup.store import environment, files
from groundup.store.run import Run
from groundup.store.stage import Stage

__all__ = ["Run", "Stage", "environment", "files"]
