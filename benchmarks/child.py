"""One side of a comparison in a process of its own: `python child.py JOB RESULT`, called by train.py and rl.py."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

MODULES = {
    "ours": "ours",
    "profile": "ours",
    "trl": "peers",
    "trainer": "pretraining",
    "plain": "pretraining",
    "search": "search",
    "floor": "floor",
    "rl-ours": "rl_ours",
    "rl-trl": "rl_trl",
    "rl-floor": "rl_floor",
}


def main(request: Path, answer: Path) -> int:
    job = pickle.loads(request.read_bytes())
    result: dict[str, Any]
    try:
        result = importlib.import_module(MODULES[job.side]).run(job)
    except Exception as error:  # a peer that fails becomes a row of the table, and the others go on
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    except KeyboardInterrupt:  # the parent hears it too, and tells what was measured
        return 130
    answer.write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
