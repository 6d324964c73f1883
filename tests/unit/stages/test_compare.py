"""What `groundup compare` looks at."""

import json

import pytest

from groundup.errors import UserError
from groundup.stages.compare import Asked, _items

CARD = """---
configs:
- config_name: easy
  data_files:
  - {split: train, path: easy.jsonl}
- config_name: hard
  data_files:
  - {split: train, path: hard.jsonl}
  - {split: test, path: hard_test.jsonl}
---
"""


def test_config_and_split_choose_the_rows(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    for name in ("easy", "hard", "hard_test"):
        row = {"prompt": "q", "chosen": f"{name} is", "rejected": "no"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")

    def chosen(**settings):
        return _items([], Asked((str(tmp_path),), **settings))[0].chosen[0].content

    assert chosen(config="easy") == "easy is"
    assert chosen(config="hard") == "hard is"
    assert chosen(config="hard", split="test") == "hard_test is"
    with pytest.raises(UserError, match="configuration"):
        chosen()


@pytest.mark.parametrize("setting", ["config", "split"])
def test_a_part_of_no_data_set_is_an_error(setting):
    with pytest.raises(UserError, match=f"--{setting} would do nothing"):
        _items([], Asked(prompts=("Why?",), **{setting: "x"}))
