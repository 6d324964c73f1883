"""The run in one paragraph and a few large numbers. It says what got worse as plainly as what got better."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.console import duration
from groundup.report import wording
from groundup.report.reading import RunRecord, StageRecord


@dataclass(frozen=True)
class Tile:
    """One large number, with the one before it where there is one."""

    label: str
    value: str
    note: str
    before: str = ""


@dataclass(frozen=True)
class Moved:
    """A metric of a model before and after what the run did to it."""

    metric: str
    before: float
    after: float
    note: str

    @property
    def verb(self) -> str:
        return "fell" if self.after < self.before else "rose" if self.after > self.before else "stayed"


def summary(record: RunRecord) -> str:
    """One sentence for each thing that the run shows; what is not finished is left out."""
    sentences = [_base_model(stage) for stage in record.finished("pretrain")]
    moved = _moved(record)
    if moved:
        told = [
            f"{wording.metric(item.metric).label.lower()} {item.verb} from {wording.value(item.metric, item.before)}"
            f" to {wording.value(item.metric, item.after)}"
            for item in moved
        ]
        sentences.append(f"On held-out rows, {' and '.join(filter(None, (', '.join(told[:-1]), told[-1])))}.")
    missing = [stage.name for stage in record.stages if not stage.finished]
    if missing:
        sentences.append(f"Not finished yet: {', '.join(missing)}.")
    nothing = "All stages are finished." if record.stages else "Nothing has run yet."
    return " ".join(filter(None, sentences)) or nothing


def tiles(record: RunRecord) -> list[Tile]:
    """The large numbers."""
    found = []
    for stage in record.finished("pretrain"):
        if (bits := stage.held_out("after").get("bits_per_byte")) is not None:
            others = " · ".join(f"{name} {wording.digits(n)}" for name, n in _baselines(stage).items())
            found.append(
                Tile(f"Bits per byte, {stage.name}", wording.digits(bits), others or "held-out text")
            )
    for item in _moved(record):
        shown = (wording.value(item.metric, number) for number in (item.after, item.before))
        found.append(
            Tile(f"{wording.metric(item.metric).label}, held out", next(shown), item.note, next(shown))
        )
    trained = [stage for stage in record.finished() if "seconds" in stage.result]
    if trained:
        tokens = sum(stage.result["tokens"] for stage in trained)
        seconds = sum(stage.result["seconds"] for stage in trained)
        found.append(Tile("Training time", duration(seconds), f"{wording.count(tokens)} tokens"))
    return found


def _base_model(stage: StageRecord) -> str:
    bits = stage.held_out("after").get("bits_per_byte")
    if bits is None:
        return ""
    origin = (
        f"trained on from {stage.settings['model']}"
        if stage.settings.get("model")
        else "trained from scratch"
    )
    others = ", ".join(f"{name} {wording.digits(number)}" for name, number in _baselines(stage).items())
    compared = f" ({others})" if others else ""
    return f"The base model, {origin}, needs {wording.digits(bits)} bits a byte on text that it never saw{compared}."


def _baselines(stage: StageRecord) -> dict[str, float]:
    return stage.result.get("baselines") or {}


def _moved(record: RunRecord) -> list[Moved]:
    """Loss and preference from the first model to the last: of the evaluation, else of the stages themselves.

    Rewards, which no evaluation has, are a policy's stage's own.
    """
    rewards = _moved_by(record, ("grpo", "reward"), ("ppo", "reward"))
    evaluated = record.finished("eval")
    models = evaluated[-1].result.get("models", []) if evaluated else []
    if len(models) > 1:
        first, last = models[0], models[-1]
        note = f"{first['name']} → {last['name']}"
        return [
            Moved(name, first["metrics"][f"eval_{name}"], last["metrics"][f"eval_{name}"], note)
            for name in ("loss", "preference_accuracy")
            if all(
                model["metrics"].get(f"eval_{name}") is not None for model in (first, last)
            )  # null: not finite
        ] + rewards
    return _moved_by(record, ("sft", "loss"), ("reward", "accuracy"), ("dpo", "rewards/margins")) + rewards


def _moved_by(record: RunRecord, *kinds: tuple[str, str]) -> list[Moved]:
    """A metric of each finished stage of a kind, before and after it."""
    found = []
    for kind, name in kinds:
        for stage in record.finished(kind):
            before, after = (stage.held_out(moment).get(name) for moment in ("before", "after"))
            if before is not None and after is not None:
                found.append(Moved(name, before, after, f"before → after {stage.name}"))
    return found
