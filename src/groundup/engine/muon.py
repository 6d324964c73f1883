"""Muon for the matrices inside the decoder, AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x³ and x⁵ that bring every singular value near 1 in few steps (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/)."""
RMS_OF_ADAMW = 0.2
"""What an update is scaled to, so that AdamW's learning rate and weight decay fit (arXiv 2502.16982, equation 4)."""


class Muon(torch.optim.AdamW):
    """One optimizer with two kinds of groups: `matrices` are updated by Muon, `groups` by AdamW.

    PyTorch's own Muon computes in bfloat16 on every machine, which is hundreds of times slower where the processor
    has no such instructions; here the plan's dtype decides. Matrices of one shape are orthogonalised together.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        groups: list[dict[str, Any]],
        *,
        dtype: torch.dtype,
        weight_decay: float,
        **adamw: Any,
    ) -> None:
        super().__init__(groups, **adamw)
        self.add_param_group({"params": matrices, "weight_decay": weight_decay, "muon": True})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of all groups."""
        everything = self.param_groups
        try:
            self.param_groups = [group for group in everything if not group.get("muon")]
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group.get("muon"):
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        for (rows, columns), parameters in by_shape.items():
            updates = torch.stack([self._direction(parameter) for parameter in parameters])
            scale = RMS_OF_ADAMW * max(rows, columns) ** 0.5
            for parameter, update in zip(parameters, orthogonal(updates.to(self._dtype)), strict=True):
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)

    def _direction(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum of the gradient."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(parameter.grad, 1.0 - MOMENTUM)
        return parameter.grad.lerp(state["momentum_buffer"], MOMENTUM)


def orthogonal(matrix_BRC: Tensor) -> Tensor:
    """Nearly the orthogonal factor U V' of each matrix's singular value decomposition, by Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix_BRC.shape[-2] > matrix_BRC.shape[-1]
    x = matrix_BRC.mT if tall else matrix_BRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
