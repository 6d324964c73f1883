"""What a run needs to go on: trained weights, the optimizer's moments, the step. Tensors only, no pickle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.engine.phase import PHASE, Phase, save_phase
from groundup.errors import UserError
from groundup.objective import Metrics
from groundup.store import Stage
from groundup.store.files import read_json, write_json

WEIGHTS, OPTIMIZER, STATE = "trained.safetensors", "optimizer.safetensors", "state.json"
GO_BACK = "remove this checkpoint's folder: the stage goes on from an earlier one, or trains again"


@dataclass
class State:
    """Where training stands. Everything else follows from the seed and the step."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    logged_lines: int = 0
    """How much of metrics.jsonl there was."""
    window: Metrics = field(default_factory=dict)
    """Metrics since the last of these lines."""
    carry: dict[str, float] = field(default_factory=dict)
    """What the last phase hands on to the next."""

    def advance(self, tokens: int, seconds: float) -> None:
        """One more step is done."""
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter, each once: a tied head is its embedding."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    phase: Phase | None = None,
) -> None:
    """Write the three files into `folder`, which the store publishes as a whole; and a phase that is in its middle."""
    parameters = trained_parameters(model)
    save_file({name: p.detach().cpu().contiguous() for name, p in parameters.items()}, folder / WEIGHTS)
    moments = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, p in parameters.items()
        for key, value in optimizer.state[p].items()
    }
    save_file(moments, folder / OPTIMIZER)
    write_json(folder / STATE, asdict(state))
    if phase is not None and state.step < phase.end_step:
        save_phase(folder / PHASE, phase)


def resume(stage: Stage, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """The state of the stage's last checkpoint, with its weights and moments in place; or that of a beginning."""
    checkpoints = stage.checkpoints()
    return load_checkpoint(checkpoints[-1], model, optimizer) if checkpoints else State()


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put the checkpoint's weights and moments in place; the state it was saved with.

    Raises UserError when the checkpoint is not this model's, is damaged, or holds NaN; then nothing was changed.
    """
    parameters = trained_parameters(model)
    weights, moments = (_read(folder / name) for name in (WEIGHTS, OPTIMIZER))
    shapes, wanted = ({name: tuple(t.shape) for name, t in state.items()} for state in (weights, parameters))
    if shapes != wanted:
        name = min({name for name, _ in shapes.items() ^ wanted.items()})
        here, there = wanted.get(name, "missing"), shapes.get(name, "missing")
        raise UserError(
            "the checkpoint does not fit the model",
            where=str(folder),
            why=f"{name} is {there} in the checkpoint and {here} in the model",
            fix="remove the stage's folder to train it again",
        )
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(weights[name])
    for name, p in parameters.items():
        optimizer.state[p] = {
            key.rpartition("/")[2]: value.to(p.device)
            if key.endswith("/step")
            else value.to(p.device, p.dtype)
            for key, value in moments.items()
            if key.rpartition("/")[0] == name
        }
    return State(**read_json(folder / STATE))


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors that training can go on from: one NaN among them, and each further step would be skipped."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            "a checkpoint cannot be read", where=str(path), why=str(error), fix=GO_BACK
        ) from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"the checkpoint holds a number that is not finite, in {name}",
                where=str(path),
                why="the file is damaged, or training broke down before it was saved",
                fix=GO_BACK,
            )
    return tensors
