"""Which stages run again: those whose settings or inputs have changed in a way that matters."""

import json
import shutil

import pytest

from groundup.errors import UserError
from groundup.stages.inputs import check_inputs, references, stage_fingerprint, stages_before
from groundup.store import files

ROW = {"prompt": "a question", "completion": "an answer"}
PAIR = {"prompt": "a question", "chosen": "an answer", "rejected": "la la"}


@pytest.fixture
def model(tmp_path):
    """What a fingerprint sees of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def stages(model, write):
    return {
        "clean": {"data": write("texts.jsonl", [{"text": "some text"}])},
        "tokenizer": {"from": "clean"},
        "shards": {"from": "clean", "tokenizer": "tokenizer"},
        "pretrain": {"from": "shards"},
        "sft": {
            "from": str(model),
            "data": write("rows.jsonl", [ROW]),
            "eval_data": write("held.jsonl", [ROW]),
        },
        "dpo": {"from": "sft", "data": write("pairs.jsonl", [PAIR])},
        "merge": {"from": "dpo"},
        "eval": {"from": "merge"},
    }


@pytest.fixture
def finished(context, stages):
    """Every stage finished, with one file of its own content."""
    run = context(stages, "sft").run
    for name in stages:
        stage = run.stage(name)
        with stage.lock():
            stage.started("f")
            files.write_text(stage.final / "out", name)
            files.write_text(stage.data / "heldout.jsonl", name)
            stage.finish("f", {})
    return run


@pytest.fixture
def fingerprint(context, stages, finished):
    return lambda name, *settings, **more: stage_fingerprint(context(stages, name, settings, **more))


def test_nothing_changed(fingerprint, stages):
    assert len({fingerprint(name) for name in stages}) == len(stages)
    for name in stages:
        assert fingerprint(name) == fingerprint(name)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("clean", "clean.min_chars=9"),
        ("clean", "clean.holdout=0.5"),
        ("clean", "clean.data.subset=3"),
        ("clean", "clean.data.columns={text: body}"),
        ("tokenizer", "tokenizer.vocab_size=999"),
        ("pretrain", "pretrain.architecture.hidden_size=64"),
        ("pretrain", "pretrain.max_length=99"),
        ("pretrain", "pretrain.batch_tokens=999"),
        ("sft", "sft.learning_rate=1e-9"),
        ("sft", "sft.lora=false"),
        ("sft", "sft.lora.r=3"),
        ("sft", "sft.loss_on=last"),
        ("sft", "sft.max_length=99"),
        ("sft", "sft.batch_size=3"),
        ("sft", "sft.max_steps=3"),
        ("sft", "sft.max_minutes=3"),
        ("sft", "sft.num_train_epochs=3"),
        ("sft", "sft.warmup_ratio=0.5"),
        ("sft", "sft.lr_scheduler_type=linear"),
        ("sft", "sft.dtype=bfloat16"),
        ("sft", "sft.sample_count=1"),
        ("sft", "sft.data.max_bad_rows=0.5"),
        ("sft", "seed=3"),
        ("sft", "chat.system_prompt=Sing."),
        ("sft", "chat.chat_template_kwargs={enable_thinking: false}"),
        ("dpo", "dpo.beta=0.3"),
        ("pretrain", "seed=3"),
        ("eval", "eval.sample_tokens=3"),
        ("eval", "chat.system_prompt=Sing."),
    ],
)
def test_a_setting_that_matters(fingerprint, name, setting):
    assert fingerprint(name, setting) != fingerprint(name)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("sft", "sft.logging_steps=3"),
        ("sft", "sft.save_steps=3"),
        ("sft", "sft.save_total_limit=3"),
        ("sft", "dpo.beta=0.3"),
        ("sft", "description=other words"),
        ("merge", "dpo.beta=0.3"),
        ("clean", "seed=3"),
        ("shards", "seed=3"),
        ("merge", "seed=3"),
        ("eval", "seed=3"),
        ("clean", "chat.system_prompt=Sing."),
        ("pretrain", "chat.system_prompt=Sing."),
    ],
)
def test_a_setting_that_does_not_matter(fingerprint, name, setting):
    assert fingerprint(name, setting) == fingerprint(name)


@pytest.mark.parametrize("file", ["rows.jsonl", "held.jsonl", "model/model.safetensors", "model/config.json"])
def test_the_content_of_what_is_read(fingerprint, tmp_path, file):
    before = fingerprint("sft")
    with (tmp_path / file).open("a") as opened:
        opened.write("\n")
    assert fingerprint("sft") != before


def test_the_content_of_the_chat_template(fingerprint, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("one")
    setting = f"chat.chat_template={template}"
    before = fingerprint("sft", setting)
    assert before != fingerprint("sft")
    template.write_text("two")
    assert fingerprint("sft", setting) != before


def test_the_content_of_an_earlier_stage(fingerprint, finished):
    before = {name: fingerprint(name) for name in ("tokenizer", "dpo", "merge", "eval")}
    stage = finished.stage("sft")
    files.write_text(stage.final / "out", "other weights")
    stage.finish("f", {})
    changed = {name for name, old in before.items() if fingerprint(name) != old}
    assert changed == {"dpo", "eval"}, "merge reads dpo, which has not changed yet"


def test_how_long_an_earlier_stage_took(fingerprint, finished):
    before = fingerprint("dpo")
    stage = finished.stage("sft")
    files.append_jsonl(stage.metrics, {"step": 1, "tokens_per_second": 7})
    stage.finish("f", {"seconds": 7})
    assert fingerprint("dpo") == before


def test_where_the_data_lies(context, stages, fingerprint, tmp_path):
    before = fingerprint("sft")
    other = shutil.copy(tmp_path / "rows.jsonl", tmp_path / "same.jsonl")
    assert fingerprint("sft", f"sft.data={other}") == before


def test_where_the_model_lies(fingerprint, model, tmp_path):
    """An adapter names its base's folder, so a model elsewhere is another one."""
    before = fingerprint("sft")
    other = shutil.copytree(model, tmp_path / "other")
    assert fingerprint("sft", f"sft.from={other}") != before


def test_the_base_below_an_adapter(fingerprint, model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    files.write_json(adapter / "adapter_config.json", {"base_model_name_or_path": str(model)})
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    before = fingerprint("sft", f"sft.from={adapter}")
    (model / "model.safetensors").write_bytes(b"other weights")
    assert fingerprint("sft", f"sft.from={adapter}") != before


def test_a_tokenizer_folder_for_shards(fingerprint, model):
    (model / "model.safetensors").unlink()
    assert fingerprint("shards", f"shards.tokenizer={model}") != fingerprint("shards")


def test_a_rehearsal_is_no_run(context, stages, finished):
    from dataclasses import replace

    one = context(stages, "sft")
    assert stage_fingerprint(one) != stage_fingerprint(replace(one, rehearse=True))


def test_what_a_stage_reads(context, stages):
    recipe = context(stages, "sft").recipe
    assert references(recipe.stages["shards"]) == ["clean", "tokenizer"]
    assert stages_before(recipe, "pretrain") == ["clean", "tokenizer", "shards"]
    assert stages_before(recipe, "eval") == ["sft", "dpo", "merge"]
    assert stages_before(recipe, "clean") == []


def test_checking_names_the_stage(context, stages):
    recipe = context(stages, "sft", ("sft.from=./nowhere",)).recipe
    with pytest.raises(UserError, match="nowhere") as error:
        check_inputs(recipe, ["sft"])
    assert error.value.where == "stage sft"
    check_inputs(recipe, ["clean", "dpo"])


def test_a_classifiers_classes_are_checked_before_anything_is_trained(context, stages, write, model):
    judge = model.with_name("judge")
    shutil.copytree(model, judge)
    reward = {"function": "sentiment", "model": str(judge)}
    rows = write("prompts.jsonl", [ROW])
    stages |= {"grpo": {"from": "sft", "data": rows, "eval_data": rows, "rewards": [reward]}}
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "bad", "1": "good"}}
    (judge / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no class that is called positive") as error:
        check_inputs(context(stages, "grpo").recipe, ["sft", "grpo"])
    assert error.value.where == "stages.grpo.rewards" and "bad, good" in error.value.why
    reward["label"] = "good"
    check_inputs(context(stages, "grpo").recipe, ["sft", "grpo"])


def test_checking_reads_only_the_first_rows(context, stages, write):
    rows = write("long.jsonl", [ROW] * 100 + ["broken"] * 50)
    recipe = context(stages, "sft", (f"sft.data={rows}",)).recipe
    check_inputs(recipe, ["sft"])
    recipe = context(stages, "sft", (f"sft.data={write('none.jsonl', ['broken'] * 3)}",)).recipe
    with pytest.raises(UserError, match="3 of 3 rows") as error:
        check_inputs(recipe, ["sft"])
    assert error.value.where.endswith("none.jsonl:1")


def test_the_template_of_a_tokenizer(fingerprint, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("one")
    first = fingerprint("tokenizer", f"tokenizer.chat_template={path}")
    path.write_text("two")
    assert (
        len({first, fingerprint("tokenizer"), fingerprint("tokenizer", f"tokenizer.chat_template={path}")})
        == 3
    )
