"""What a run tells: metrics.jsonl for programs, TensorBoard for eyes."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import SummaryWriter

from groundup.engine.checkpoint import State
from groundup.store import Stage
from groundup.store.files import append_jsonl, read_jsonl, to_json, write_text

_NOT_CURVES = {"step", "epoch", "elapsed_seconds"}


class MetricLog:
    """Appends to the stage's metrics. After a resume, what was logged beyond the checkpoint is taken back."""

    def __init__(self, stage: Stage, state: State) -> None:
        self._stage = stage
        kept = read_jsonl(stage.metrics)[: state.logged_lines]
        self.lines = len(kept)
        if stage.metrics.exists():
            write_text(stage.metrics, "".join(to_json(line) + "\n" for line in kept))
        self._writer = SummaryWriter(str(stage.tensorboard), purge_step=state.step + 1 if state.step else 0)

    def log(self, step: int, **values: Any) -> None:
        """One line, and one point on each curve."""
        append_jsonl(self._stage.metrics, {"step": step, **values})
        self.lines += 1
        for name, value in values.items():
            if name not in _NOT_CURVES:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
