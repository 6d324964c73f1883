"""What a chat says about a model: where it comes from, what else its run made, and why it may talk nonsense."""

from __future__ import annotations

from groundup import hub
from groundup.infer.load import Loaded
from groundup.store import Run, files

KINDS = {
    "pretrain": "a base model, trained from scratch on raw text",
    "sft": "fine-tuned on conversations",
    "dpo": "aligned with preferences",
    "merge": "its adapter merged into the base model",
}
ENOUGH_TOKENS_PER_PARAMETER = 20  # compute-optimal training, arXiv 2203.15556


def about_model(loaded: Loaded, run: Run | None) -> str:
    """One or two lines: which model this is, how large, and which stages made it."""
    config = loaded.model.config
    size = f"{config.model_type}, {rounded(parameter_count(loaded))} parameters, {loaded.context_tokens:,} tokens of context"
    stage = stage_name(loaded, run)
    if run is None or stage is None:
        return f"{loaded.name}: {size}"
    words = KINDS.get(run.planned_stages()[stage]["kind"], "")
    return f"{run.name}/{stage}: {words} ({' → '.join(lineage(run, stage))})\n{size}"


def other_models(loaded: Loaded, run: Run | None) -> dict[str, str]:
    """Names for `/model`, with what they are: the run's other models, and what its chain began with."""
    if run is None:
        return {}
    stages, current = run.planned_stages(), stage_name(loaded, run)
    others = {name: KINDS.get(stages[name]["kind"], "") for name, _ in hub.list_models(run) if name != current}
    began = {} if current is None else {lineage(run, current)[0]: "what it was made from"}
    return others | {name: words for name, words in began.items() if name not in stages and name != loaded.name}


def why_nonsense(loaded: Loaded, run: Run | None) -> str:
    """A sentence when the model saw too little text to make sense; empty when it did not, or nobody knows."""
    stage = stage_name(loaded, run)
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


def stage_name(loaded: Loaded, run: Run | None) -> str | None:
    """The run's stage that made this model; None for a model from elsewhere."""
    name = loaded.folder.parent.name
    if run is None or loaded.folder.parent.parent.resolve() != run.root.resolve():
        return None
    return name if name in run.planned_stages() else None


def lineage(run: Run, stage: str) -> list[str]:
    """From what the chain began with to `stage`."""
    stages, chain = run.planned_stages(), [stage]
    while chain[0] in stages:
        settings = stages[chain[0]]
        before = settings.get("model") if settings["kind"] == "pretrain" else settings.get("from")
        if not before or before in chain:
            break
        chain.insert(0, before)
    return chain


def parameter_count(loaded: Loaded) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())


def rounded(count: float) -> str:
    """`3.4 million`: as exact as anybody needs."""
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.0f}"
