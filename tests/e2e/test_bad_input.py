"""What people get wrong: exit code 2, where, what to do, no traceback, nothing left where nothing could start."""

import os
import shutil
import time

import pytest

FAST = [
    "--set=max_steps=1",
    "--set=dtype=float32",
    "--set=sample_count=0",
    "--set=batch_size=4",
    "--set=holdout=0.3",
]


@pytest.fixture
def clean(tmp_path):
    """Called at the end: the test's folder holds what it held before."""
    before = set(tmp_path.rglob("*"))

    def check(*allowed):
        left = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
        assert left == set(allowed)

    return check


def nothing_half_written(folder):
    """A run that failed in its first stage says why in its log, and has no result of any kind."""
    assert (folder / "run.log").stat().st_size > 0
    names = {path.name for path in folder.rglob("*")}
    assert not names & {"final", "result.json", "manifest.json"}
    assert not [name for name in names if name.startswith((".tmp-", "checkpoint-"))]


# Data


def test_an_empty_file(model, write, groundup, tmp_path):
    file = write("empty.jsonl", "")
    groundup("sft", "--model", model, "--data", file).refused(str(file), "empty")
    groundup("pretrain", "--data", file).refused(str(file), "empty")
    assert os.listdir(tmp_path) == ["empty.jsonl"]


def test_a_path_that_is_not_there(model, write, groundup, tmp_path):
    write("rows.jsonl", "x")
    groundup("sft", "--model", model, "--data", "row.jsonl").refused("row.jsonl", "did you mean rows.jsonl")
    groundup("pretrain", "--data", "books/").refused("books")
    groundup("sft", "--model", "./modell", "--data", "rows.jsonl").refused("modell")
    assert os.listdir(tmp_path) == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": [{"role": "user", "content": "Why?"}]}, "3 of 3 rows"),
        ({"instruction": "Why?", "output": ""}, "3 of 3 rows"),
        ({"prompt": "Why?", "completion": None}, "The rows are prompts, and conversations are needed here"),
    ],
)
def test_rows_without_answers(model, write, groundup, tmp_path, row, told):
    file = write("rows.jsonl", [row] * 3)
    said = groundup("sft", "--model", model, "--data", file)
    said.refused(f"{file}:1", told)
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_some_rows_without_answers(model, write, conversation, groundup, tmp_path):
    """Too many: the run stops, and its folder lists every one of them."""
    rows = [conversation(i) for i in range(20)]
    rows[7] = {"messages": rows[7]["messages"][:1]}
    file = write("rows.jsonl", rows)
    said = groundup("sft", "--model", model, "--data", file, *FAST)
    said.refused(f"{file}:8", "1 of 20 rows", "no answer", "quarantine.jsonl", "max_bad_rows")
    nothing_half_written(tmp_path / "runs" / "sft-rows")
    listed = (tmp_path / "runs" / "sft-rows" / "sft" / "quarantine.jsonl").read_text()
    assert '"line": 8' in listed or '"line":8' in listed
    assert (
        groundup("sft", "--model", model, "--data", file, *FAST, "--set", "data.max_bad_rows=0.1").code == 0
    )


def test_data_of_the_wrong_kind(model, chat_file, pairs_file, groundup, clean):
    groundup("sft", "--model", model, "--data", pairs_file).refused(f"{pairs_file}:1", "dpo")
    groundup("dpo", "--model", model, "--data", chat_file).refused(f"{chat_file}:1", "rejected")
    clean()


def test_plain_text_where_rows_are_needed(model, write, groundup, clean):
    file = write("notes.txt", "Some text.")
    groundup("sft", "--model", model, "--data", file).refused("notes.txt", ".jsonl")
    clean("notes.txt")


def test_a_file_of_no_known_kind(model, write, groundup, clean):
    file = write("rows.xlsx", "PK")
    groundup("sft", "--model", model, "--data", file).refused("rows.xlsx", "known are .jsonl")
    clean("rows.xlsx")


def test_broken_json_names_its_line(model, conversation, write, groundup, tmp_path):
    import json

    lines = [json.dumps(conversation(i)) for i in range(6)]
    lines[3] = lines[3][:-4]
    file = write("rows.jsonl", "\n".join(lines))
    groundup("sft", "--model", model, "--data", file, *FAST).refused(f"{file}:4", "not valid JSON")
    nothing_half_written(tmp_path / "runs" / "sft-rows")


def test_all_rows_too_long(model, chat_file, groundup, tmp_path):
    said = groundup("sft", "--model", model, "--data", chat_file, *FAST, "--set", "max_length=8")
    said.refused("no rows are left to train on", str(chat_file), "longer than 8 tokens", "raise max_length")
    nothing_half_written(tmp_path / "runs" / "sft-chat")


def test_all_rows_too_long_for_an_evaluation(model, chat_file, groundup):
    said = groundup("eval", model, "--data", chat_file, "--set", "max_length=8")
    said.refused("no rows are left to evaluate on", str(chat_file), "longer than 8 tokens")


def test_rows_beyond_the_models_context(model, write, groundup, tmp_path):
    file = write("rows.jsonl", [{"prompt": f"Sing {i}.", "completion": "la " * 200} for i in range(8)])
    said = groundup("sft", "--model", model, "--data", file, *FAST)
    said.refused("context ends at 160", "max_length", "at most 160")
    said = groundup("eval", model, "--data", file)
    said.refused("longer than 160 tokens")


def test_more_than_one_row_in_a_hundred_too_long_for_an_evaluation(model, conversation, write, groundup):
    """Found when the rows are rendered, before any model looks at one."""
    long = {"prompt": "Sing.", "completion": "la " * 200}
    file = write("rows.jsonl", [*(conversation(i) for i in range(20)), long])
    little = ("--set", "sample_count=1", "--set", "sample_tokens=4")
    said = groundup("eval", model, "--data", file, *little)
    said.refused("1 of 21 rows cannot be used", f"{file}:21", "longer than 160 tokens", "raise max_length")
    assert groundup("eval", model, "--data", file, *little, "--set", "data.max_bad_rows=0.1").code == 0


def test_a_single_row(model, conversation, write, groundup):
    """It cannot be both trained on and held out."""
    file = write("rows.jsonl", [conversation(0)])
    groundup("sft", "--model", model, "--data", file, *FAST).refused("no rows are left", "eval_data")


def test_nothing_held_out(model, chat_file, write, groundup, clean):
    groundup("sft", "--model", model, "--data", chat_file, "--set", "holdout=0").refused(
        "holdout is 0", "eval_data"
    )
    write("my.yaml", f"stages:\n  sft:\n    from: {model}\n    data: {chat_file}\n    holdout: 0\n")
    groundup("run", "my.yaml").refused("my.yaml:2", "holdout is 0", "eval_data")
    clean("my.yaml")


def test_too_little_text(write, groundup, tmp_path):
    file = write("one.txt", "Only one document of some sixty characters, so none can be held out.")
    groundup("pretrain", "--data", file).refused("1 documents are too few", "one.txt", "holdout")
    nothing_half_written(tmp_path / "runs" / "pretrain-one")
    assert not (tmp_path / "runs" / "pretrain-one" / "clean" / "data").exists()


# Models


def test_a_model_folder_without_weights(model, chat_file, groundup, tmp_path, clean):
    hollow = shutil.copytree(model, tmp_path / "hollow")
    (hollow / "model.safetensors").unlink()
    data = ["--data", chat_file]
    for line in (["sft", "--model", hollow, *data], ["chat", hollow], ["eval", hollow, *data]):
        groundup(*line).refused("hollow", "no weights", "model.safetensors", "copy or download")
    assert os.listdir(tmp_path) == ["hollow"]


def test_weights_that_are_cut_short(model, chat_file, groundup, tmp_path):
    torn = shutil.copytree(model, tmp_path / "torn")
    data = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(data[: len(data) // 2])
    groundup("sft", "--model", torn, "--data", chat_file, *FAST).refused("torn")
    nothing_half_written(tmp_path / "runs" / "sft-chat")


def test_a_model_without_a_tokenizer(model, chat_file, groundup, tmp_path):
    mute = shutil.copytree(model, tmp_path / "mute")
    for file in mute.glob("tokenizer*"):
        file.unlink()
    groundup("sft", "--model", mute, "--data", chat_file, *FAST).refused("no tokenizer", "mute")


def test_a_package_that_is_not_installed(chat_file, groundup, clean):
    groundup("sft", "--model", "package:nope", "--data", chat_file).refused("nope", "pip install")
    groundup("chat", "package:nope").refused("nope", "pip install")
    clean()


def test_a_model_without_a_chat_template(base_model, chat_file, groundup, tmp_path):
    said = groundup("sft", "--model", base_model, "--data", chat_file, *FAST)
    said.refused("no chat template", "chat.chat_template")
    nothing_half_written(tmp_path / "runs" / "sft-chat")


def test_a_template_that_is_not_there(model, chat_file, groundup):
    groundup("sft", "--model", model, "--data", chat_file, "--set", "chat.chat_template=no.jinja").refused(
        "no.jinja"
    )


def test_an_adapter_whose_base_is_gone(chain, chat_file, groundup, tmp_path):
    adapter = shutil.copytree(chain.root / "sft" / "final", tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace("tiny", "gone"))
    groundup("sft", "--model", adapter, "--data", chat_file).refused(
        "adapter_config.json", "base_model_name_or_path"
    )


# The run's folder


@pytest.fixture
def rows(chat_file):
    return ["--data", chat_file, *FAST]


def test_out_is_a_file(model, rows, write, groundup, clean):
    file = write("taken", "mine")
    groundup("sft", "--model", model, *rows, "--out", file).refused("taken", "file, not a folder")
    groundup("sft", "--model", model, *rows, "--out", file / "below").refused("taken", "file, not a folder")
    assert file.read_text() == "mine"
    clean("taken")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
def test_out_where_nothing_can_be_made(model, rows, groundup, clean):
    groundup("sft", "--model", model, *rows, "--out", "/proc/groundup/run").refused(
        "/proc/groundup/run", "folder"
    )
    clean()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_out_without_permission(model, rows, groundup, tmp_path):
    (locked := tmp_path / "locked").mkdir(mode=0o500)
    groundup("sft", "--model", model, *rows, "--out", locked / "run").refused("locked", "permission")
    assert not list(locked.iterdir())


def test_a_stage_folder_with_files_of_somebody(model, rows, groundup, tmp_path):
    """Never removed: they are no stage's."""
    (tmp_path / "run" / "sft" / "final").mkdir(parents=True)
    mine = tmp_path / "run" / "sft" / "final" / "mine.txt"
    mine.write_text("dear to me")
    groundup("sft", "--model", model, *rows, "--out", "run").refused("no stage made", "--out")
    assert mine.read_text() == "dear to me"


# Recipes

RECIPE = """\
stages:
  sft:
    from: {model}
    data: {data}
    {line}
"""


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("learnig_rate: 1e-3", ["my.yaml:5", "learnig_rate", "learning_rate"]),
        ('learning_rate: "fast"', ["my.yaml:5", "learning_rate", "number", "fast"]),
        ("learning_rate: -1", ["my.yaml:5", "learning_rate", "above 0"]),
        ("lora: {rank: 8}", ["my.yaml:5", "rank"]),
        ("lora: true", ["my.yaml:5", "lora"]),
        ("loss_on: first", ["my.yaml:5", "loss_on", "last"]),
        ("max_steps: [1", ["my.yaml:", "YAML"]),
        ("\tmax_steps: 1", ["my.yaml:5", "tab"]),
        ("data: other.jsonl", ["my.yaml:5", "given twice"]),
        ("holdout: 1.5", ["my.yaml:5", "holdout", "below 1"]),
    ],
)
def test_a_wrong_line(model, chat_file, write, groundup, clean, line, parts):
    write("my.yaml", RECIPE.format(model=model, data=chat_file, line=line))
    groundup("run", "my.yaml").refused(*parts)
    clean("my.yaml")


def test_a_wrong_key_is_found_at_once(model, chat_file, write, in_shell, clean):
    """Before torch is imported: within two seconds of the processor's time."""
    import resource

    write("my.yaml", RECIPE.format(model=model, data=chat_file, line="learnig_rate: 1e-3"))
    spent, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    said = in_shell("run", "my.yaml")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    said.refused("my.yaml:5", "learnig_rate", "Did you mean `learning_rate`?")
    assert min(now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime, time.monotonic() - began) < 2
    clean("my.yaml")


def test_yaml_numbers(model, chat_file, write, groundup, tmp_path):
    """YAML 1.2: 2e-4 is a number."""
    write("my.yaml", RECIPE.format(model=model, data=chat_file, line="learning_rate: 2e-4"))
    said = groundup("run", "my.yaml", *(option.replace("--set=", "--set=sft.") for option in FAST))
    assert said.code == 0, said.err
    assert "learning_rate: 0.0002" in (tmp_path / "runs" / "my" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        (
            "  dpo: {{from: sfft, data: {pairs}}}\n  sft: {{from: {model}, data: {chat}}}",
            ["my.yaml:2", "`sft`"],
        ),
        ("  dpo: {{from: nowhere-to-be-found, data: {pairs}}}", ["nowhere-to-be-found", "stage dpo"]),
        ("  clean: {{data: {chat}}}\n  tokenizer: {{from: cleen}}", ["my.yaml:3", "cleen", "`clean`"]),
        ("  clean: {{data: {chat}}}\n  tokenizer: {{from: x}}", ["my.yaml:3", "no stage `x`", "kind clean"]),
        (
            "  clean: {{data: {chat}}}\n  dpo: {{from: clean, data: {pairs}}}",
            ["my.yaml:3", "makes documents"],
        ),
        ("  a: {{kind: sft, from: b, data: {chat}}}\n  b: {{kind: sft, from: a, data: {chat}}}", ["circle"]),
        ("  pretrain: {{from: shards}}", ["my.yaml:2", "shards"]),
        ("  models: {{kind: sft, from: {model}, data: {chat}}}", ["my.yaml:2", "models"]),
        ("  tune: {{from: {model}, data: {chat}}}", ["my.yaml:2", "kind"]),
    ],
)
def test_stages_that_do_not_fit(model, chat_file, pairs_file, write, groundup, clean, stages, parts):
    write("my.yaml", "stages:\n" + stages.format(model=model, chat=chat_file, pairs=pairs_file))
    groundup("run", "my.yaml").refused(*parts)
    clean("my.yaml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("", ["empty"]), ("- a\n- b\n", ["my.yaml:1"]), ("name: x\n", ["stages"]), ("stages: {}\n", ["stages"])],
)
def test_recipes_that_are_none(write, groundup, clean, text, parts):
    write("my.yaml", text)
    groundup("run", "my.yaml").refused(*parts)
    clean("my.yaml")


def test_a_recipe_that_is_not_there(groundup, clean):
    groundup("run", "dem").refused("dem", "demo")
    groundup("run", "my.yaml").refused("my.yaml")
    clean()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--set", "sft.learnig_rate=1"], ["learnig_rate", "learning_rate"]),
        (["--set", "sftt.max_steps=1"], ["sftt", "sft"]),
        (["--set", "max_steps"], ["name=value"]),
        (["--set", "sft.max_steps=few"], ["--set sft.max_steps=few", "few"]),
        (["--only", "dpo"], ["dpo", "sft"]),
        (["--until", "stf"], ["stf", "sft"]),
    ],
)
def test_wrong_options(model, chat_file, write, groundup, clean, options, parts):
    write("my.yaml", RECIPE.format(model=model, data=chat_file, line="max_steps: 1"))
    groundup("run", "my.yaml", *options).refused(*parts)
    clean("my.yaml")
