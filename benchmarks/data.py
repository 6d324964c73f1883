"""Data work of Groundup beside datatrove, datasketch and tokenizers: speed, peak memory, and growth with the input.

    python benchmarks/data.py [--only dedup,clean,tokens] [--megabytes N] [--processes N] [--quick] [--out FILE]

All sides work on the same documents: N MB (200) made from the real text in the folder that GROUNDUP_DATA names (or
--data), kept in --cache. Each side runs in a process of its own, one after the other, with the same number of
processes. Peak memory is that of a side's processes together. Each row is said when it is measured, and --out is
written anew with it, so that a benchmark that is ended loses what was being measured and nothing else. The last line of
standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from table import Row

WORKS = {"dedup": "data_dedup", "clean": "data_clean", "tokens": "data_tokens"}
QUICK_MEGABYTES = 10
PEERS = ("datatrove", "datasketch", "spacy")


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    data = options.data or os.environ.get("GROUNDUP_DATA")
    if not data or not (Path(data) / "pretrain").is_dir():
        print("Skipped: GROUNDUP_DATA names no folder of real data, and neither does --data.")
        return 0
    from data_session import Session
    from measure import environment
    from table import Row, cells, printed

    options.cache.mkdir(parents=True, exist_ok=True)
    megabytes = QUICK_MEGABYTES if options.quick else options.megabytes
    session = Session(Path(data), options.cache, megabytes, options.processes, options.timeout_minutes * 60)
    about = environment(1) | {"processes": options.processes, "megabytes": megabytes}
    for name in PEERS:
        if importlib.util.find_spec(name) is None:
            print(f'{name} is not installed: pip install "groundup[bench]"', file=sys.stderr, flush=True)
    rows: list[Row] = []
    code = 0
    for name in options.only:
        print(f"{name}", file=sys.stderr, flush=True)
        try:
            for row in importlib.import_module(WORKS[name]).rows(session):
                rows.append(row)
                written(rows, about, options.out)
                print("  " + "  ".join(filter(None, cells(row))), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            rows.append(Row(name, "", "", "", error="left out: stopped by ctrl-C"))
            code = 130
            break
        except Exception as error:  # the other works go on
            rows.append(Row(name, "", "", "", error=f"{type(error).__name__}: {error}"))
            code = 1
    print(f"\n{about['cpu']}, {options.processes} processes, {megabytes} MB; load {about['load_average']}\n")
    print(printed(rows) if rows else "Nothing was measured.")
    line = written(rows, about, options.out)
    print(line)
    return code


def written(rows: Sequence[Row], about: dict[str, Any], out: Path | None) -> str:
    """The figures as one line of JSON, which is in the file too: whole, or as it was."""
    plain = [{key: value for key, value in asdict(row).items() if value not in ("", None)} for row in rows]
    line = json.dumps({"name": "data", "rows": plain, "environment": about})
    if out:
        temporary = out.with_name(out.name + ".tmp")
        temporary.write_text(line + "\n", encoding="utf-8")
        os.replace(temporary, out)
    return line


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).parent
    there = [name for name, module in WORKS.items() if (here / f"{module}.py").exists()]
    parser.add_argument("--only", help=f"of {', '.join(there)}; default: all")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MEGABYTES} MB")
    parser.add_argument("--data", help="the folder of real data")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "groundup-benchmark-data")
    parser.add_argument("--timeout-minutes", type=float, default=60, help="of one side")
    parser.add_argument("--out", type=Path, help="also write the JSON line to this file, anew after each row")
    options = parser.parse_args(arguments)
    options.only = [name for name in (options.only or ",".join(there)).split(",") if name]
    if wrong := [name for name in options.only if name not in there]:
        parser.error(f"there is no work {wrong[0]!r}: {', '.join(there)}")
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.parent}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
