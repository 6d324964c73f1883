"""The page for those who come from elsewhere: its right sides are commands, recipes and settings that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from groundup.cli import cli
from groundup.config import build_recipe, foreign, list_recipes, load_recipe
from groundup.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| there")
]
COMMANDS = [code for _, here in ROWS for code in re.findall(r"`(groundup [^`]+)`", here)]
SETTINGS = [row for row in ROWS if re.match(r"`[a-zA-Z_]+[`:]", row[0])]
BLOCKS = [
    YAML(typ="safe", pure=True).load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
]
ISSUED = """
data_processing.download_and_reproduce pretrain_trainer.py sft_trainer.py dpo_trainer.py
ppo_trainer.py src.inference.inference src.evaluation.evaluate_llm diagnose_dataset.py
scripts/merge_lora.py run_sft_train.sh run_dpo_train.sh run_full_evaluation.sh analyze_results.py
visualize_results.py train_dpo_min.py train_dpo_full.py trl_metrics_check.py trl_margin_sanity
compare_on_train_prompts.py analyze_len_bias_two.py dump_two_negatives.py generate_check.py
max_steps dataset_subset_size dataset_subset_size_cpu ppo_steps model_name_or_path model_config_path
dataset_dir lora_target_modules paged_adamw_8bit attnImplementation scripts.base_train
llamafactory-cli
"""


@pytest.mark.parametrize("name", ISSUED.split())
def test_what_people_come_with_is_on_the_left(name):
    assert any(name in there for there, _ in ROWS)


def parsed(command):
    """The verb and its options, as click reads them."""
    words = shlex.split(command)[1:]
    verb = cli.commands[words.pop(0)]
    while isinstance(verb, click.Group):
        verb = verb.commands[words.pop(0)]
    return verb.name, verb.make_context(verb.name, words).params


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses_and_its_recipe_and_stages_exist(command):
    verb, options = parsed(command)
    if verb != "run" or options["recipe"].endswith(".yaml"):
        return
    assert options["recipe"] in {recipe.name for recipe in list_recipes()}
    recipe = load_recipe(options["recipe"], options["settings"], options["form"])
    named = {*options["only"], *filter(None, (options["from_stage"], options["until"]))}
    assert named <= set(recipe.stages)


def test_there_are_commands():
    assert len(COMMANDS) > 25 and len(SETTINGS) > 15


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row[0])
def test_a_setting_is_called_what_the_error_says(row):
    there, here = row
    for name in re.findall(r"`([a-zA-Z0-9_]+)`", there):
        if here.startswith("left out"):
            assert foreign.advice(name).startswith("Leave it out: "), name
        elif not here.startswith(f"`{name}`"):
            assert foreign.NAMES[name][0] == re.match(r"`([\w.]+)`", here)[1], name
    for setting, value in re.findall(r"`(\w+): (\w+)`", there):
        assert foreign.value_advice(setting, value), "the value has an answer of its own"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_files_on_the_page(number):
    """A recipe loads; another tool's file is told from one, and each of its settings has an answer or is ours."""
    block = BLOCKS[number]
    if "stages" in block:
        assert build_recipe({"name": "page", **block}).stages
        return
    with pytest.raises(UserError, match="another tool's configuration"):
        foreign.refuse(block, "page.yaml")
    ours = {"learning_rate", "num_train_epochs", "max_length", "warmup_ratio"}
    assert [key for key in block if not foreign.advice(key) and key not in ours] == []
