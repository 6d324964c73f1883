"""One loop, one step, optimizer, checkpoints, metrics; and the exactness probe."""

from groundup.engine.exactness import Exactness, probe
from groundup.engine.loop import Outcome, train

__all__ = ["Exactness", "Outcome", "probe", "train"]
