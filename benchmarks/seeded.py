"""What the benchmarks share that train by stages of their own, a run for each work and seed: options, and mistakes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from groundup.errors import UserError


def parser_of(
    about: str | None, works: Sequence[str], chosen: Sequence[str], example: str
) -> argparse.ArgumentParser:
    """--only, of these works, --seeds, --set, --runs and --out. about: the script's docstring."""

    def names(text: str) -> list[str]:
        given = text.split(",")
        if unknown := [name for name in given if name not in works]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(works)}")
        return given

    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--only", type=names, default=list(chosen), metavar="NAMES")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[STAGE.]KEY=VALUE",
        help=f"one more setting, such as {example}; repeatable",
    )
    parser.add_argument("--runs", metavar="FOLDER", help="keep the runs there; what is finished is reused")
    parser.add_argument("--out", metavar="FILE")
    return parser


def guarded(main: Callable[[list[str]], int]) -> int:
    """The script's exit code; a mistake that can be put right is said in words."""
    try:
        return main(sys.argv[1:])
    except UserError as error:
        print(error.render(), file=sys.stderr)
        return 2
