"""The model that a policy is kept close to: the policy as its stage begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from groundup.batch import Batch
from groundup.engine.phase import with_columns
from groundup.model import LanguageModel, copy_adapter, has_lora, lora_state, using_adapter

ADAPTER = "reference"


@dataclass(frozen=True)
class Reference:
    """Where its weights are. `adapter`: which one is active then; None: the base alone."""

    model: LanguageModel
    adapter: str | None
    how: str
    """In words, for the plan."""

    def logps(
        self, rows: Sequence[Batch], device: str, on_row: Callable[[Batch], object] = lambda row: None
    ) -> list[Batch]:
        """The rows with their column `ref_logp`."""
        switched = using_adapter(self.model, self.adapter) if has_lora(self.model) else nullcontext()
        with switched:
            return with_columns(rows, self.model, {"ref_logp": "logp"}, device, on_row)


def make_reference(policy: LanguageModel, load: Callable[[], LanguageModel]) -> Reference:
    """The reference of a policy that has not been trained yet; to be called before a checkpoint is read.

    A fresh adapter says nothing, so switching it off is the reference. An adapter that the stage goes on with gets a
    frozen copy beside it. Where all weights are trained, `load` gives a second, frozen model in the compute dtype.
    """
    if not has_lora(policy):
        frozen = load().requires_grad_(False)
        frozen.temperature = policy.temperature
        return Reference(frozen, None, "a second, frozen copy of the model")
    if all(not tensor.any() for name, tensor in lora_state(policy).items() if name.endswith("lora_B.weight")):
        return Reference(policy, None, "the policy with its adapter switched off")
    copy_adapter(policy, ADAPTER, trainable=False)
    return Reference(policy, ADAPTER, "a frozen copy of the adapter that the stage began with")
