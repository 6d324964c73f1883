"""Which files of a folder are read."""

import json
from pathlib import Path

import pytest

from groundup.config.schema import DataSettings, EvalDataSettings
from groundup.data import Ledger, data_paths, read_conversations
from groundup.data.splits import split_of
from groundup.errors import UserError

ROW = '{"question": "q", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("dev.csv.gz", "validation"),
        ("gsm8k_test.jsonl", "test"),
        ("train-data.json", "train"),
        ("data/train_sft-00000-of-00003-abc.parquet", "train_sft"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("data-00000-of-00001.arrow", None),
        ("c4-validation.00000-of-00008.json.gz", "validation"),
        ("valid/rows.jsonl", "validation"),
        ("rows.jsonl", None),
        ("latest.jsonl", None),
        ("the_test_of_time.txt", None),
        ("wiki.train.txt", "train"),
        ("valid.txt", "validation"),
    ],
)
def test_names(name, split):
    assert split_of(Path("/d", name), Path("/d")) == split


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ROW)
    return str(folder)


def chosen(folder, kind=DataSettings, **settings):
    return [path.relative_to(folder).as_posix() for path in data_paths(kind(path=[str(folder)], **settings))]


def test_train_is_read_for_training_and_another_for_evaluation(tmp_path):
    made(tmp_path, "train.jsonl", "more.jsonl", "test.jsonl", "dev/a.jsonl")
    assert chosen(tmp_path) == ["more.jsonl", "train.jsonl"]
    assert chosen(tmp_path, EvalDataSettings) == ["dev/a.jsonl"]
    assert chosen(tmp_path, split="test") == ["test.jsonl"]
    assert chosen(tmp_path, split="valid") == ["dev/a.jsonl"]
    ledger = Ledger()
    read_conversations(DataSettings(path=[str(tmp_path)]), ledger)
    assert ledger.decisions()[0] == f"{tmp_path}: split train; not read: test, validation"
    assert ledger.as_dict()["splits"] == {str(tmp_path): "split train; not read: test, validation"}
    assert [p.name for p in data_paths(DataSettings(path=[str(tmp_path / "*.jsonl")]))] == [
        "more.jsonl",
        "test.jsonl",
        "train.jsonl",
    ]


def test_a_split_that_is_not_there(tmp_path):
    made(tmp_path, "train.jsonl", "test.jsonl")
    with pytest.raises(UserError) as caught:
        chosen(tmp_path, split="validation")
    assert "test, train" in caught.value.why


def test_the_only_split_is_read_and_said(tmp_path):
    made(tmp_path, "a/test.jsonl", "b/test.jsonl", "notes.txt")
    ledger = Ledger()
    assert len(read_conversations(DataSettings(path=[str(tmp_path)]), ledger)) == 2
    assert ledger.splits == {str(tmp_path): "split test"}


def test_several_and_none_preferred(tmp_path):
    made(tmp_path, "data/train_sft-00000-of-00001.jsonl", "data/train_gen-00000-of-00001.jsonl")
    with pytest.raises(UserError) as caught:
        chosen(tmp_path)
    assert "split: train_gen" in caught.value.fix
    made(tmp_path / "one", "train_sft-00000-of-00001.jsonl", "test_sft-00000-of-00001.jsonl")
    assert chosen(tmp_path / "one") == ["train_sft-00000-of-00001.jsonl"]


def test_shards_are_the_data_set_and_other_rows_its_raw_form(tmp_path):
    """As the hub's OpenAssistant/oasst1, which has dumps of the same messages beside its splits."""
    made(tmp_path, "data/train-00000-of-00001-ab.jsonl", "data/validation-00000-of-00001-cd.jsonl")
    made(
        tmp_path, *(f"2023-04-12_oasst_{name}.jsonl.gz" for name in ("all.trees", "ready", "spam", "prompts"))
    )
    assert chosen(tmp_path) == ["data/train-00000-of-00001-ab.jsonl"]
    assert chosen(tmp_path, EvalDataSettings) == ["data/validation-00000-of-00001-cd.jsonl"]
    ledger = Ledger()
    read_conversations(DataSettings(path=[str(tmp_path)]), ledger)
    assert ledger.splits[str(tmp_path)].startswith("split train; not read: validation, 2023-04-12_oasst_all")
    assert ledger.splits[str(tmp_path)].endswith(", 1 more files")


def test_what_is_about_the_rows_is_not_read(tmp_path):
    made(tmp_path, "rows.jsonl", "README.md", "LICENSE.md", "SOURCE.txt", "dataset_info.json", "book.md")
    assert chosen(tmp_path) == ["book.md", "rows.jsonl"]


@pytest.mark.slow
def test_folders_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([json.loads(ROW)] * 3)
    one.save_to_disk(tmp_path / "single")
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(tmp_path / "both")
    (tmp_path / "both" / "train" / "cache-1.arrow").write_bytes(b"")
    for name, split, rows in (("single", None, 3), ("both", None, 3), ("both", "test", 1)):
        ledger = Ledger()
        read_conversations(DataSettings(path=[str(tmp_path / name)], split=split), ledger)
        assert ledger.kept == ledger.rows_in == rows
    one.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    one.to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    assert len(read_conversations(DataSettings(path=[str(tmp_path / "hub")]), Ledger())) == 3


def test_a_damaged_saved_folder(tmp_path):
    made(tmp_path, "data-00000-of-00001.arrow", "state.json")
    with pytest.raises(UserError, match="state.json"):
        (tmp_path / "state.json").write_text('{"_data_files": [3]}')
        chosen(tmp_path)
