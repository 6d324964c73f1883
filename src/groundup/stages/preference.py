"""What a preference stage trains on: pairs with what the reference says, or answers with a label and the step's KL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundup.batch import Batch, Chain, Record, pack_step
from groundup.config.schema import DpoSettings
from groundup.eval import logps_by_record, packed_rows
from groundup.machine.plan import Plan
from groundup.model import LanguageModel
from groundup.objective import PREFERENCE_LOSSES, Objective
from groundup.stages.context import Context
from groundup.stages.reference import Logps, Reference, reference_logps
from groundup.stages.training import Material, row_tokens_for, step_records

Records = Callable[[], list[Record]]
"""Held-out rows as the model stands now: KTO's carry its KL."""


def preference_objective(settings: DpoSettings) -> Objective:
    """The loss that the recipe names."""
    return PREFERENCE_LOSSES[settings.loss](**settings.options)


def columned(settings: DpoSettings, records: Sequence[Record]) -> list[Record]:
    """The records as the objective takes them, with numbers in place of those that are not known yet.

    Steps can be timed with any.
    """
    share = preference_objective(settings).token_share
    kl = {"kl": 0.0} if settings.loss == "kto" else {}
    made = [replace(record, token_share=share, group={**record.group, **kl}) for record in records]
    if not settings.needs_reference:
        return made
    unknown = dict.fromkeys((record.index for record in made), (0.0,) * len(made[0].chains))
    return with_reference(made, unknown)


def timed_as_trained(settings: DpoSettings, model: LanguageModel, material: Material) -> Material:
    """The material as steps are timed with it: KTO's pass over mismatched answers takes time too."""
    if settings.loss != "kto":
        return material

    def records(ids: Sequence[int]) -> list[Record]:
        found = material.records(ids)
        others = mismatched(found, material.chain_tokens)
        logps_by_record(model, pack_step(others, material.longest_tokens, material.layout), str(model.device))
        return found

    return replace(material, records=records)


def with_reference(records: Sequence[Record], reference: Logps) -> list[Record]:
    """The records with their `ref_logp` column."""
    return [replace(record, sequence={"ref_logp": reference[record.index]}) for record in records]


def compared(
    context: Context,
    reference: Reference | None,
    model: LanguageModel,
    material: Material,
    plan: Plan,
    train: list[Record],
    heldout: list[Record],
) -> tuple[Material, Records]:
    """The material and the held-out rows with what the reference says of them.

    train, heldout: as `columned` gives them. To be called before the first step, with the model that it begins with.
    """
    if reference is None:
        return material, lambda: heldout
    kto = Kto(context, model, material, plan, train, heldout) if context.settings.loss == "kto" else None
    steps = min(plan.total_steps, material.stream.steps_for(1.0))
    plain = replace(material, records=lambda ids: [train[i] for i in ids])

    def rows(layout: str) -> Iterator[Batch]:
        # The very rows of the first epoch: so the first step's margins are exactly zero.
        yield from laid_out(context, plain, plan, layout, range(steps))
        yield from packed_rows(heldout, plan.row_tokens, layout)
        if kto is not None:
            yield from kto.mismatched_rows(layout)

    # With those that the last step takes of the next epoch.
    pairs = steps * context.settings.batch_size + len(heldout)
    total = pairs + (kto.count if kto else 0)
    found = reference_logps(context, reference, model, plan, rows, total)
    seen = [record for record in train if record.index in found]
    known = {record.index: record for record in with_reference(seen, found)}
    heldout = with_reference(heldout, found)
    if kto is None:
        return replace(material, records=lambda ids: [known[i] for i in ids]), lambda: heldout
    kto.reference = found
    return (
        replace(material, records=lambda ids: kto.with_kl([known[i] for i in ids])),
        lambda: kto.with_kl(heldout),
    )


def laid_out(context: Context, material: Material, plan: Plan, layout: str, steps: range) -> Iterator[Batch]:
    """Rows of some steps, in the layout of the plan or another one, in which a record may take more room."""
    for step in steps:
        records = step_records(context, material, plan, step)
        yield from pack_step(records, row_tokens_for(plan, layout, records), layout)


def mismatched(records: Sequence[Record], most_tokens: int) -> list[Record]:
    """Each record's prompt with the answer of the one before it, the first with the last one's, as TRL pairs them.

    They keep the place of the prompt's record in `index`. A text ends at `most_tokens`; at least one token is scored.
    """
    made = []
    for own, other in zip(records, [records[-1], *records[:-1]], strict=True):
        (asked,), (answered,) = own.chains, other.chains
        prompt, begin = int(np.argmax(asked.scored)), int(np.argmax(answered.scored))
        token = np.concatenate([asked.token[:prompt], answered.token[begin:]])[:most_tokens]
        scored = np.concatenate([np.zeros(prompt, dtype=np.bool_), answered.scored[begin:]])[:most_tokens]
        made.append(Record(own.index, (Chain(token, scored),)))
    return made


@dataclass
class Kto:
    """KTO's baseline: how far the model has gone from its reference, on the step's prompts with others' answers."""

    context: Context
    model: LanguageModel
    material: Material
    plan: Plan
    train: list[Record]
    heldout: list[Record]

    def __post_init__(self) -> None:
        self.reference: Logps = {}
        rows = self.train + self.heldout
        self._most_tokens = max(len(chain.token) for record in rows for chain in record.chains)
        self._numbers: dict[tuple[int, int], int] = {}

    @property
    def count(self) -> int:
        """Records of `mismatched_rows`."""
        return self.plan.total_steps * int(self.context.settings.batch_size) + len(self.heldout)

    def mismatched_rows(self, layout: str) -> Iterator[Batch]:
        """All that will be asked of the reference, a record for each prompt and answer that meet."""
        others = replace(self.material, records=lambda ids: self._numbered([self.train[i] for i in ids]))
        yield from laid_out(self.context, others, self.plan, layout, range(self.plan.total_steps))
        heldout = self._numbered(self.heldout)
        yield from packed_rows(heldout, self.plan.row_tokens, layout)

    def with_kl(self, records: Sequence[Record]) -> list[Record]:
        """The records with `kl`, by the model as it is now: without gradient, over all of them, never below zero."""
        others = self._numbered(records)
        rows = pack_step(others, row_tokens_for(self.plan, self.plan.layout, others), self.plan.layout)
        now = logps_by_record(self.model, rows, self.plan.device)
        ratios = [now[other.index][0] - self.reference[other.index][0] for other in others]
        kl = max(0.0, float(np.mean(ratios)))
        return [replace(record, group={**record.group, "kl": kl}) for record in records]

    def _numbered(self, records: Sequence[Record]) -> list[Record]:
        """Mismatched records, each numbered by who asked and who answered, behind all true ones."""
        first = len(self.train) + len(self.heldout)
        made = []
        for at, other in enumerate(mismatched(records, self._most_tokens)):
            key = (records[at].index, records[at - 1].index)
            made.append(replace(other, index=first + self._numbers.setdefault(key, len(self._numbers))))
        return made
