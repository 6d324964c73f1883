"""One loop, one step, its phases, optimizer, checkpoints, metrics; and the exactness probe."""

from groundup.engine.exactness import Exactness, probe
from groundup.engine.loop import Outcome, train
from groundup.engine.phase import Offline, Phase, Source

__all__ = ["Exactness", "Offline", "Outcome", "Phase", "Source", "probe", "train"]
