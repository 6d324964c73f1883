"""One loop, one step, optimizer, checkpoints, metrics."""

from groundup.engine.loop import Outcome, train

__all__ = ["Outcome", "train"]
