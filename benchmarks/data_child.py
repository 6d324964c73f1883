"""One side of a data benchmark in a process of its own: `python data_child.py REQUEST ANSWER`."""

import importlib
import json
import pickle
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    module, name, given = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        result = getattr(importlib.import_module(module), name)(**given)
    except Exception as error:  # a side that fails becomes a row of the table, and the others go on
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
