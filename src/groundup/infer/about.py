"""What a chat says about a model: where it comes from, what else its run made, and why it may talk nonsense."""

from __future__ import annotations

from groundup import hub
from groundup.infer.load import Loaded
from groundup.infer.origin import lineage, stage_of
from groundup.store import Run, files

KINDS = {
    "pretrain": "a base model, trained from scratch on raw text",
    "sft": "fine-tuned on conversations",
    "reward": "a reward model",
    "dpo": "aligned with preferences",
    "grpo": "trained by rewards on its own answers (GRPO)",
    "ppo": "trained by rewards on its own answers (PPO)",
    "merge": "its adapter merged into the base model",
}
ENOUGH_TOKENS_PER_PARAMETER = 20  # compute-optimal training, arXiv 2203.15556


def about_model(loaded: Loaded, run: Run | None) -> str:
    """One or two lines: which model this is, how large, and which stages made it."""
    config = loaded.model.config
    count = rounded(parameter_count(loaded))
    size = f"{config.model_type}, {count} parameters, {loaded.context_tokens:,} tokens of context"
    stage = stage_of(run, loaded.folder)
    if run is None or stage is None:
        return f"{loaded.name}: {size}"
    words = KINDS.get(run.planned_stages()[stage]["kind"], "")
    return f"{run.name}/{stage}: {words} ({' → '.join(lineage(run, stage))})\n{size}"


def other_models(loaded: Loaded, run: Run | None) -> dict[str, str]:
    """Names for `/model`, with what they are: the run's other models, and what its chain began with."""
    if run is None:
        return {}
    stages, current = run.planned_stages(), stage_of(run, loaded.folder)
    others = {
        name: KINDS.get(stages[name]["kind"], "")
        for name, _ in hub.list_models(run, answering=True)
        if name != current
    }
    began = {} if current is None else {lineage(run, current)[0]: "what it was made from"}
    return others | {
        name: words for name, words in began.items() if name not in stages and name != loaded.name
    }


def why_nonsense(loaded: Loaded, run: Run | None) -> str:
    """A sentence when the model saw too little text to make sense; empty when it did not, or nobody knows."""
    stage = stage_of(run, loaded.folder)
    if run is None or stage is None:
        return ""
    result = files.read_json(run.stage(stage).result)
    parameters = parameter_count(loaded)
    if result.get("kind") != "pretrain" or result["tokens"] >= ENOUGH_TOKENS_PER_PARAMETER * parameters:
        return ""
    return (
        f"It was trained for {result['steps']:,} steps on {rounded(result['tokens'])} tokens; a model of "
        f"{rounded(parameters)} parameters needs about {rounded(ENOUGH_TOKENS_PER_PARAMETER * parameters)}, so "
        "expect words and grammar but little sense, and phrases that come again and again."
    )


def parameter_count(loaded: Loaded) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())


def rounded(count: float) -> str:
    """`3.4 million`: as exact as anybody needs."""
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.0f}"
