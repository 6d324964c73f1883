"""Configurations and splits of data sets, of hubs and of folders like theirs."""

import pytest

from groundup.config.schema import DataSettings, EvalDataSettings
from groundup.data import Ledger, data_paths, read_conversations
from groundup.data.configs import choose_config, glob_pattern, read_configs
from groundup.errors import UserError


def row(file):
    """Files with equal content are one file to a hub."""
    return f'{{"question": "{file}?", "answer": "a"}}\n'.encode()


WIKITEXT = b"""---
license: cc-by-sa-3.0
configs:
- config_name: wikitext-103-raw-v1
  data_files:
  - split: test
    path: wikitext-103-raw-v1/test-*
  - split: train
    path: wikitext-103-raw-v1/train-*
- config_name: wikitext-2-raw-v1
  data_files:
  - split: test
    path: wikitext-2-raw-v1/test-*
  - split: train
    path: wikitext-2-raw-v1/train-*
---
# WikiText
"""
FILES = [
    f"{config}/{split}-00000-of-00001.jsonl"
    for config in ("wikitext-103-raw-v1", "wikitext-2-raw-v1")
    for split in ("test", "train")
]


@pytest.fixture
def wikitext(loopback_hub):
    loopback_hub.add_dataset("wikitext", {file: row(file) for file in FILES} | {"README.md": WIKITEXT})
    return loopback_hub


def names(hub, kind=DataSettings, path="wikitext", **settings):
    hub.requests.clear()
    found = data_paths(kind(path=[path], **settings))
    assert set(hub.fetched) <= {*(f"{file.parent.name}/{file.name}" for file in found), "README.md", *FILES}
    return [f"{file.parent.name}/{file.name}" for file in found]


def test_only_the_files_of_the_wanted_configuration_and_split_are_downloaded(wikitext):
    assert names(wikitext, config="wikitext-2-raw-v1") == [FILES[3]]
    assert wikitext.fetched == ["README.md", FILES[3]]
    assert names(wikitext, config="wikitext-2-raw-v1", split="test") == [FILES[2]]
    assert wikitext.fetched == [FILES[2]]


def test_what_is_read_is_said(wikitext):
    ledger = Ledger()
    read_conversations(EvalDataSettings(path=["wikitext"], config="wikitext-2-raw-v1"), ledger)
    assert ledger.splits == {"wikitext": "configuration wikitext-2-raw-v1, split test; not read: train"}


def test_without_the_name_of_one_of_several_they_are_listed(wikitext):
    with pytest.raises(UserError, match="not clear which configuration") as caught:
        names(wikitext)
    assert "wikitext-103-raw-v1, wikitext-2-raw-v1" in caught.value.why
    assert "config: wikitext-103-raw-v1" in caught.value.fix


def test_a_configuration_or_split_that_is_not_there(wikitext):
    with pytest.raises(UserError, match="There is no configuration wikitext-2.") as caught:
        names(wikitext, config="wikitext-2")
    assert "wikitext-103-raw-v1, wikitext-2-raw-v1" in caught.value.why
    with pytest.raises(UserError, match="There is no split validation") as caught:
        names(wikitext, config="wikitext-2-raw-v1", split="validation")
    assert "test, train" in caught.value.why
    assert not [file for file in wikitext.fetched if file.endswith(".jsonl")]


def test_without_a_card_folders_are_configurations(loopback_hub):
    loopback_hub.add_dataset("org/rows", {file: row(file) for file in FILES})
    assert names(loopback_hub, path="org/rows", config="wikitext-2-raw-v1") == [FILES[3]]
    with pytest.raises(UserError) as caught:
        names(loopback_hub, path="org/rows", config="other")
    assert "it has wikitext-103-raw-v1, wikitext-2-raw-v1" in caught.value.why
    loopback_hub.add_dataset("org/plain", {"train.jsonl": row("")})
    with pytest.raises(UserError) as caught:
        names(loopback_hub, path="org/plain", config="other")
    assert "no configurations" in caught.value.why


@pytest.mark.parametrize(
    ("files", "train", "heldout"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
          "data/test-00000-of-00001.parquet"],
         ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
         ["data/test-00000-of-00001.parquet"]),
        (["train.jsonl", "validation.jsonl", "test.jsonl"], ["train.jsonl"], ["validation.jsonl"]),
        (["plain_text/unsupervised-00000-of-00001.parquet", "plain_text/train-00000-of-00001.parquet"],
         ["plain_text/train-00000-of-00001.parquet"], ["plain_text/train-00000-of-00001.parquet"]),
        (["data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"],
         ["data/train_sft-00000-of-00001.parquet"], ["data/test_sft-00000-of-00001.parquet"]),
        (["test/a.jsonl", "train/a.jsonl"], ["train/a.jsonl"], ["test/a.jsonl"]),
        (["openassistant_best_replies_train.jsonl", "openassistant_best_replies_eval.jsonl"],
         ["openassistant_best_replies_train.jsonl"], ["openassistant_best_replies_eval.jsonl"]),
    ],
    ids=lambda value: value[0],
)  # fmt: skip
def test_splits_are_told_by_names(loopback_hub, files, train, heldout):
    loopback_hub.add_dataset("org/rows", {file: row(file) for file in [*files, ".gitattributes", "LICENSE"]})
    for kind, wanted in ((DataSettings, train), (EvalDataSettings, heldout)):
        found = data_paths(kind(path=["org/rows"]))
        assert [file.as_posix()[-len(name) :] for file, name in zip(found, wanted, strict=True)] == wanted
    assert sorted(set(loopback_hub.fetched)) == sorted({*train, *heldout})


def test_offline_the_same_is_chosen(wikitext, online):
    from huggingface_hub import constants

    chosen = names(wikitext, config="wikitext-2-raw-v1")
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert names(wikitext, config="wikitext-2-raw-v1") == chosen
    with pytest.raises(UserError, match="downloads are switched off") as caught:
        names(wikitext, config="wikitext-2-raw-v1", split="test")
    assert "missing" in caught.value.why
    with pytest.raises(UserError, match="There is no configuration"):
        names(wikitext, config="wikitext-1")


def test_a_folder_like_a_hubs(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(row(""))
    spec = DataSettings(path=[str(tmp_path)], config="wikitext-2-raw-v1")
    assert data_paths(spec) == [tmp_path / FILES[3]]
    (tmp_path / "README.md").write_bytes(WIKITEXT)
    assert data_paths(spec) == [tmp_path / FILES[3]]
    with pytest.raises(UserError, match="not clear which configuration"):
        data_paths(DataSettings(path=[str(tmp_path)]))


def test_a_configuration_of_a_file_would_do_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(row(""))
    for path in (str(tmp_path / "rows.jsonl"), str(tmp_path / "*.jsonl"), "builtin:python-docs"):
        with pytest.raises(UserError, match="`config: x` would do nothing"):
            data_paths(DataSettings(path=[path], config="x"))


CARD = "---\nconfigs:\n{}\n---\n"


@pytest.mark.parametrize(
    ("entries", "config", "splits"),
    [
        ("- {config_name: a, data_files: rows.csv}", "a", {"train": ("rows.csv",)}),
        ("- {config_name: a, data_files: [x/*, y/**]}", "a", {"train": ("x/1.csv", "y/2.csv", "y/z/3.csv")}),
        (
            "- {config_name: a, data_files: rows.csv}\n- {config_name: b, default: true, data_dir: y, data_files: '*'}",
            "b",
            {"train": ("y/2.csv",)},
        ),
        (
            "- {config_name: a, data_files: x}\n- config_name: default\n  data_files:\n"
            "  - {split: dev, path: [x/1.csv, 'y/[!3].csv']}",
            "default",
            {"dev": ("x/1.csv", "y/2.csv")},
        ),
        ("- {config_name: a, data_dir: y}", "a", None),
    ],
)
def test_forms_of_a_card(entries, config, splits):
    files = ["rows.csv", "x/1.csv", "y/2.csv", "y/z/3.csv"]
    chosen = choose_config("org/rows", None, CARD.format(entries), files)
    assert chosen.name == config
    assert chosen.splits == splits
    if splits is None:
        assert chosen.files == ("y/2.csv", "y/z/3.csv")


@pytest.mark.parametrize(
    "card", ["", "# Title", "---\na: [\n---\n", "---\nconfigs: 3\n---\n", "---\n- a\n---\n", "---"]
)
def test_cards_that_say_nothing(card):
    assert read_configs(card, ["train.csv"]) == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("data/train-*", ["data/train-0.parquet"], ["data/x/train-0", "data/test-0"]),
        ("**/train.csv", ["train.csv", "a/b/train.csv"], ["train_csv"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a"]),
        ("a?[0-9].csv", ["ax1.csv"], ["a/1.csv", "axx.csv"]),
    ],
)
def test_patterns(pattern, yes, no):
    assert [glob_pattern(pattern).fullmatch(name) is not None for name in yes + no] == [True] * len(yes) + [
        False
    ] * len(no)


@pytest.mark.slow
@pytest.mark.parametrize(
    "entries",
    [
        "- {config_name: a, data_files: rows.jsonl}",
        "- {config_name: a, data_files: 'x/*'}\n- {config_name: b, data_files: '**/3.jsonl'}",
        "- {config_name: a, data_dir: data/en}\n- {config_name: b, default: true, data_files: x/1.jsonl}",
        "- config_name: default\n  data_files:\n  - {split: train, path: [x/1.jsonl, x/2.jsonl]}\n"
        "  - {split: held, path: y/test.jsonl}",
        "- {config_name: a, data_files: ['x/[12].jsonl']}",
        "- {config_name: a, data_files: 'y/**'}",
    ],
)
def test_the_same_as_datasets(tmp_path, entries):
    """The library's own choice of files for each configuration and split, and without the name of one."""
    datasets = pytest.importorskip("datasets")
    names = ["rows", "x/1", "x/2", "y/train", "y/test", "y/z/3"]
    names += ["data/en/train-00000-of-00001", "data/en/test-00000-of-00001"]
    for name in names:
        (tmp_path / f"{name}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    (tmp_path / "README.md").write_text(CARD.format(entries))
    configs = [config.name for config in read_configs(CARD.format(entries), [])]
    for config in [*configs, None] if len(configs) == 1 or "default: true" in entries else configs:
        theirs = datasets.load_dataset(str(tmp_path), config, cache_dir=str(tmp_path / ".cache"))
        for split, rows in theirs.items():
            ours = data_paths(DataSettings(path=[str(tmp_path)], config=config, split=split))
            found = [path.relative_to(tmp_path).as_posix().removesuffix(".jsonl") for path in ours]
            assert sorted(found) == sorted(rows["text"])
