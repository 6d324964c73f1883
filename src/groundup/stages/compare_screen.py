"""What `groundup compare` prints: one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup import console

COLUMNS = ("margin", "accuracy", "chosen longer", "shorter", "length corr.")
KINDS = {
    "logps": "log-probability",
    "logps_per_token": "log-probability a token",
    "rewards": "reward",
    "rewards_per_token": "reward a token",
}
EXCERPT = 160
WIDTH = 26


def show(result: dict[str, Any], file: Path) -> None:
    """Preferences, the worst pairs, answers side by side."""
    if "pairs" in result:
        _show_preferences(result)
    for item in result["answers"]:
        console.say(f"\n> {_excerpt(item['prompt'])}")
        answers = {"data": item["reference"], **item["answers"]}
        width = max(map(len, answers))
        for who, text in answers.items():
            if text is not None:
                console.say(f"  {who:<{width}}  {_excerpt(text) or '(nothing)'}")
    console.say(f"\nAll of it: {file}")


def _show_preferences(result: dict[str, Any]) -> None:
    left = f", {result['left_out']:,} left out (too long, or refused)" if result["left_out"] else ""
    console.say(
        f"\n{result['pairs']:,} pairs{left}; the chosen answer is longer in {result['chosen_longer']:.0%}"
    )
    if result["reference"]:
        console.say(f"rewards: {result['beta']:g} x log-ratio to {result['reference']}")
    console.say(" " * WIDTH + "".join(f"{column:>15}" for column in COLUMNS))
    for model, kinds in result["margins"].items():
        console.say(model)
        for kind, found in kinds.items():
            cells = [
                f"{found['margin']:.4g}",
                *(
                    _percent(found[name])
                    for name in ("accuracy", "accuracy_chosen_longer", "accuracy_chosen_shorter")
                ),
                "–" if found["length_correlation"] is None else f"{found['length_correlation']:+.2f}",
            ]
            console.say(f"  {KINDS[kind]:<{WIDTH - 2}}" + "".join(f"{cell:>15}" for cell in cells))
    if result["worst"]:
        model = result["models"][-1]
        console.say(f"\nWorst pairs of {model}, by {KINDS[result['worst_by']]}:")
    for place, pair in enumerate(result["worst"], 1):
        margin = pair["margins"][model][result["worst_by"]]
        tokens = f"{pair['chosen_tokens']:,} tokens against {pair['rejected_tokens']:,}"
        console.say(f"  {place}. {margin:.4g}  {pair['origin']}  ({tokens})")
        for side in ("prompt", "chosen", "rejected"):
            console.say(f"     {side:<9} {_excerpt(pair[side][-1]['content'])}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"
