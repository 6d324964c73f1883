"""`groundup compare A [B]`: the same pairs and questions, what each model says of them, side by side."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from groundup import console
from groundup.batch import Chain, Record
from groundup.config.schema import ChatSettings, DataSettings
from groundup.data import Ledger, Pair, holds_pairs
from groundup.errors import UserError
from groundup.eval import packed_rows, record_logps
from groundup.eval.answers import answer_prompts
from groundup.eval.preferences import PairLogps, diagnose, margins
from groundup.hub import resolve_model
from groundup.infer import Loaded, load_for_inference
from groundup.infer.origin import lineage, run_of, stage_of
from groundup.machine.process import check_alone
from groundup.stages.compare_screen import show
from groundup.stages.evaluate import ROW_TOKENS
from groundup.stages.rows import PAIR_KINDS, Item, Prompt, Renderer, asked, prompt_of, read_items
from groundup.store.files import to_json, write_text
from groundup.tokenizer.chat import BadConversation, render_prompt


@dataclass(frozen=True)
class Asked:
    """What models are compared on. `files`: empty for what the run held out."""

    files: tuple[str, ...] = ()
    config: str | None = None
    split: str | None = None
    subset: int = 200
    reference: str | None = None
    beta: float = 0.1
    max_length: int = 1024
    prompts: tuple[str, ...] = ()
    sample_count: int = 3
    max_new_tokens: int = 96
    worst: int = 3
    out: Path | None = None


@dataclass(frozen=True)
class Seen:
    """One model's view: chains and their log-probabilities by the pair's number, and answers to the prompts."""

    chains: dict[int, tuple[Chain, ...]]
    logps: dict[int, tuple[float, ...]]
    answers: list[str]


def compare_models(names: Sequence[str], what: Asked, *, as_json: bool = False) -> None:
    """Print one screen, or JSON, and write a file with every pair. Raises UserError."""
    check_alone()
    labels = _labels([*names, *([what.reference] if what.reference else [])])
    for name in labels:
        resolve_model(name)
    reference = what.reference or (names[0] if len(names) > 1 else None)
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        items = _items(names, what)
        seen, prompts = _look(list(labels), names, items, what)
        result = _result(names, labels, reference, items, prompts, seen, what)
    out = what.out or Path("runs") / f"compare-{'-'.join(_plain(labels[name]) for name in names)}.json"
    write_text(out, to_json(result, indent=2) + "\n")
    if as_json:
        console.say(to_json({key: value for key, value in result.items() if key != "each"}, indent=2))
    else:
        show(result, out)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """A short name for each model: its last word, or the whole where two would be the same."""
    short = {name: Path(name.rstrip("/\\")).name or name for name in names}
    return {name: label if list(short.values()).count(label) == 1 else name for name, label in short.items()}


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.") or "model"


def _items(names: Sequence[str], what: Asked) -> list[Item]:
    """The pairs or conversations to look at; none where there are only questions of the person's own."""
    if not what.files and (setting := "--config" if what.config else "--split" if what.split else ""):
        raise UserError(
            f"{setting} would do nothing: no --data is named.", fix="name the data set, or take it out"
        )
    files = list(what.files) or next((found for name in reversed(names) if (found := _held_out(name))), [])
    if not files:
        if what.prompts:
            return []
        raise UserError(
            "There is nothing to compare on.",
            why="no --data is named, and these models come from no stage that held rows out",
            fix='name pairs or questions with --data F, or ask something: --prompt "…"',
        )
    spec = DataSettings(
        path=files, config=what.config, split=what.split, subset=what.subset, max_bad_rows=0.999
    )
    ledger = Ledger()
    items = read_items(spec, ledger, "pairs" if holds_pairs(spec) else "conversations")
    for line in ledger.decisions():
        console.say(f"  {line}")
    return items


def _held_out(name: str) -> list[str]:
    """What the model's run held out: pairs rather than conversations, of the last stage rather than an earlier."""
    folder = resolve_model(name).path
    run = run_of(folder)
    stage = stage_of(run, folder)
    if run is None or stage is None:
        return []
    kinds = {name: settings["kind"] for name, settings in run.planned_stages().items()}
    chain = [name for name in reversed(lineage(run, stage)) if name in kinds]
    chain.sort(key=lambda name: kinds[name] not in PAIR_KINDS)
    files = [run.stage(name).data / "heldout.jsonl" for name in chain if kinds[name] in (*PAIR_KINDS, "sft")]
    return [str(file) for file in files if file.is_file()][:1]


def _look(
    models: Sequence[str], answering: Sequence[str], items: list[Item], what: Asked
) -> tuple[dict[str, Seen], list[Prompt]]:
    """One model after another, so that one at a time is in memory.

    The last one named decides for all in which dtype it is computed and how conversations are rendered: else a run's
    system prompt would make a reference read other tokens.
    """
    seen: dict[str, Seen] = {}
    prompts: list[Prompt] = []
    dtype, template = "auto", None
    chat: ChatSettings | None = None
    for name in sorted(models, key=lambda name: name != answering[-1]):
        console.say(f"  {name}")
        loaded = load_for_inference(name, None, dtype)
        if chat is None:
            dtype = str(loaded.model.compute_dtype).removeprefix("torch.")
            chat, template = loaded.chat, loaded.tokenizer.chat_template
            prompts = [*asked(what.prompts), *_spread(items, loaded, what)]
        else:
            loaded = replace(loaded, chat=chat)
            loaded.tokenizer.chat_template = loaded.tokenizer.chat_template or template
        chains, logps = _score(loaded, [item for item in items if isinstance(item, Pair)], what.max_length)
        answers = []
        if name in answering:
            loaded.model.eval()
            answers = answer_prompts(
                loaded.model, loaded.tokenizer, loaded.chat, prompts, what.max_new_tokens
            )
        seen[name] = Seen(chains, logps, answers)
        del loaded
        gc.collect()
    return seen, prompts


def _spread(items: Sequence[Item], loaded: Loaded, what: Asked) -> list[Prompt]:
    """Questions of some rows, spread over those that leave room for an answer."""
    room_tokens = loaded.context_tokens - what.max_new_tokens
    fitting = []
    for item in items if what.sample_count else ():
        prompt = prompt_of(item)
        with suppress(BadConversation):
            rendered = render_prompt(loaded.tokenizer, prompt.messages, loaded.chat)
            fitting += [prompt] if len(rendered.token) <= room_tokens else []
    count = min(what.sample_count, len(fitting))
    return [fitting[i * len(fitting) // count] for i in range(count)]


def _score(
    loaded: Loaded, pairs: list[Pair], max_length: int
) -> tuple[dict[int, tuple[Chain, ...]], dict[int, tuple[float, ...]]]:
    """Chains and summed log-probabilities of the pairs that this model can read."""
    if not pairs:
        return {}, {}
    longest_tokens = min(max_length, loaded.context_tokens)
    number = {id(pair): index for index, pair in enumerate(pairs)}
    renderer = Renderer(loaded.tokenizer, loaded.chat, longest_tokens)
    chains = {number[id(pair)]: found for pair, found in renderer.chains(pairs, Ledger())}
    records = [Record(index, found) for index, found in chains.items()]
    if not records:
        raise UserError(
            f"none of the {len(pairs)} pairs can be used with {loaded.name}",
            why=f"they are longer than {longest_tokens} tokens, or its chat template refuses them",
            fix="raise --max-length, or name other pairs",
        )
    rows = packed_rows(records, max(ROW_TOKENS, 2 * longest_tokens), loaded.layout)
    device = str(loaded.model.device)
    return chains, record_logps(loaded.model, rows, device=device, total=len(records), title="Pairs")


def _result(
    names: Sequence[str],
    labels: dict[str, str],
    reference: str | None,
    items: list[Item],
    prompts: list[Prompt],
    seen: dict[str, Seen],
    what: Asked,
) -> dict[str, Any]:
    """Everything that was found, as it is written to the file."""
    result: dict[str, Any] = {"models": [labels[name] for name in names]}
    pairs = [item for item in items if isinstance(item, Pair)]
    if pairs:
        result |= _preferences(names, labels, reference, pairs, seen, what)
    result["answers"] = [
        {
            "prompt": prompt.text,
            "reference": prompt.reference,
            "answers": {labels[name]: seen[name].answers[i] for name in names},
        }
        for i, prompt in enumerate(prompts)
    ]
    return result


def _preferences(
    names: Sequence[str],
    labels: dict[str, str],
    reference: str | None,
    pairs: list[Pair],
    seen: dict[str, Seen],
    what: Asked,
) -> dict[str, Any]:
    """Diagnoses of every kind of margin, the worst pairs, and each pair's numbers."""
    common = sorted(set.intersection(*(set(one.logps) for one in seen.values())))
    if not common:
        raise UserError("no pair can be used with all of the models", fix="raise --max-length")
    said = {name: _logps_of(one, common) for name, one in seen.items()}
    reference = _usable(reference, names, seen, common, what)
    kinds = {name: _margins(name, said, reference, what.beta) for name in names}
    judged = names[-1]
    by = next(kind for kind in ("rewards", "logps_per_token") if kind in kinds[judged])
    longer_P = said[judged].chosen_tokens_P - said[judged].rejected_tokens_P
    each = [
        {
            "origin": str(pairs[number].origin),
            "chosen_tokens": int(said[judged].chosen_tokens_P[i]),
            "rejected_tokens": int(said[judged].rejected_tokens_P[i]),
            "logps": {
                labels[name]: [float(one.chosen_P[i]), float(one.rejected_P[i])] for name, one in said.items()
            },
            "margins": {
                labels[name]: {kind: float(m[i]) for kind, m in of.items()} for name, of in kinds.items()
            },
        }
        for i, number in enumerate(common)
    ]
    worst = np.argsort(kinds[judged][by], kind="stable")[: what.worst].tolist()
    return {
        "pairs": len(common),
        "left_out": len(pairs) - len(common),
        "chosen_longer": float((longer_P > 0).mean()),
        "reference": None if reference is None else labels[reference],
        "beta": what.beta,
        "margins": {
            labels[name]: {kind: asdict(diagnose(m, said[name])) for kind, m in of.items()}
            for name, of in kinds.items()
        },
        "worst_by": by,
        "worst": [each[i] | _texts(pairs[common[i]]) for i in worst],
        "each": each,
    }


def _usable(
    reference: str | None, names: Sequence[str], seen: dict[str, Seen], common: Sequence[int], what: Asked
) -> str | None:
    """The reference, if every model reads the pairs as the same tokens. Raises UserError where it was asked for."""
    if reference is None or all(_same_tokens(seen[name], seen[reference], common) for name in names):
        return reference
    if what.reference:
        raise UserError(
            f"{reference} is no reference for these models: it reads the pairs as other tokens",
            fix="name a model with the same tokenizer and chat template, or leave --reference out",
        )
    console.say("  no rewards: the two models read the pairs as other tokens, so A is no reference for B")
    return None


def _margins(
    name: str, said: dict[str, PairLogps], reference: str | None, beta: float
) -> dict[str, np.ndarray]:
    """Every kind of margin of one model, float64 [P]."""
    own = said[name]
    found = {"logps": margins(own), "logps_per_token": margins(own, per_token=True)}
    if reference is not None and name != reference:
        found["rewards"] = margins(own, said[reference], beta=beta)
        found["rewards_per_token"] = margins(own, said[reference], beta=beta, per_token=True)
    return found


def _logps_of(seen: Seen, numbers: Sequence[int]) -> PairLogps:
    logp = np.array([seen.logps[number] for number in numbers], dtype=np.float64)
    tokens = np.array([[int(chain.scored.sum()) for chain in seen.chains[number]] for number in numbers])
    return PairLogps(logp[:, 0], logp[:, 1], tokens[:, 0], tokens[:, 1])


def _same_tokens(one: Seen, other: Seen, numbers: Sequence[int]) -> bool:
    return all(
        np.array_equal(mine.token, theirs.token) and np.array_equal(mine.scored, theirs.scored)
        for number in numbers
        for mine, theirs in zip(one.chains[number], other.chains[number], strict=True)
    )


def _texts(pair: Pair) -> dict[str, Any]:
    sides = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return {name: [message.as_dict() for message in messages] for name, messages in sides.items()}
