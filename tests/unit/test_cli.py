"""The verbs, up to the doors of the rooms behind them."""

import errno
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from groundup import __version__, console
from groundup.cli import cli, main
from groundup.errors import UserError
from groundup.shell import SECTIONS

RECIPE = "stages:\n  sft: {from: m, data: rows.jsonl}\n  dpo: {from: sft, data: pairs.jsonl}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("GROUNDUP_TRACEBACK", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    (tmp_path / "my.yaml").write_text(RECIPE)
    return tmp_path


def door(monkeypatch, module, name, act=lambda *a, **k: None):
    """Put a recorder in place of a function of another room; `act` is what it then does."""
    calls = []

    def record(*args, **kwargs):
        calls.append((args, kwargs))
        return act(*args, **kwargs)

    fake = types.ModuleType(module)
    setattr(fake, name, record)
    monkeypatch.setitem(sys.modules, module, fake)
    return calls


@pytest.fixture
def runs(monkeypatch, folder):
    return door(monkeypatch, "groundup.stages.run", "run_recipe")


def test_run_hands_everything_to_the_door(runs):
    line = [
        "run",
        "my.yaml",
        "--only",
        "sft",
        "--only",
        "dpo",
        "--from",
        "sft",
        "--until",
        "dpo",
        "--rehearse",
    ]
    assert main([*line, "--set", "sft.max_steps=2", "--set", "seed=1", "--out", "there"]) == 0
    ((recipe, out), options) = runs[0]
    assert (recipe.name, recipe.seed, recipe.stages["sft"].max_steps, out) == ("my", 1, 2, Path("there"))
    assert options == {"only": ["sft", "dpo"], "from_stage": "sft", "until": "dpo", "rehearse": True}


def test_run_without_options(runs):
    assert main(["run", "my.yaml"]) == 0
    assert runs[0][0][1] == Path("runs/my")
    assert runs[0][1] == {"only": [], "from_stage": None, "until": None, "rehearse": False}


@pytest.mark.parametrize("option", ["--only", "--from", "--until"])
def test_a_mistyped_stage_stops_before_anything_runs(runs, capsys, option):
    assert main(["run", "my.yaml", option, "sftt"]) == 2
    assert "no stage `sftt`" in (said := capsys.readouterr().err)
    assert "Did you mean `sft`? It has: sft, dpo." in said
    assert not runs


@pytest.mark.parametrize(
    ("line", "name", "stages"),
    [
        (["sft", "--model", "M", "--data", "a/rows.jsonl"], "sft-rows", {"sft": {"from": "M", "data": "a/rows.jsonl"}}),
        (
            ["sft", "--model", "M", "--data", "r.json.gz", "--data", "b", "--eval-data", "c", "--set", "max_steps=3"],
            "sft-r",
            {"sft": {"from": "M", "data": ["r.json.gz", "b"], "eval_data": "c", "max_steps": 3}},
        ),
        (
            ["dpo", "--model", "M", "--data", "my pairs.jsonl", "--set", "beta=0.5", "--set", "dpo.lora.r=4"],
            "dpo-my-pairs",
            {"dpo": {"from": "M", "data": "my pairs.jsonl", "beta": 0.5, "lora": {"r": 4}}},
        ),
        (
            ["pretrain", "--data", "books/", "--set", "vocab_size=400", "--set", "architecture.hidden_size=64"],
            "pretrain-books",
            {
                "clean": {"data": "books/"},
                "tokenizer": {"from": "clean", "vocab_size": 400},
                "shards": {"from": "clean", "tokenizer": "tokenizer"},
                "pretrain": {"from": "shards", "architecture": {"hidden_size": 64}},
            },
        ),
        (["merge", "runs/sft-mine"], "merge-sft-mine", {"merge": {"from": "runs/sft-mine"}}),
        (["eval", "Org/Model-1.7B"], "eval-Model-1.7B", {"eval": {"from": "Org/Model-1.7B"}}),
        (["eval", "package:llm_x", "--data", "q"], "eval-llm_x", {"eval": {"from": "package:llm_x", "data": "q"}}),
        (["eval", "*"], "eval-run", {"eval": {"from": "*"}}),
    ],
)  # fmt: skip
def test_short_verbs_are_recipes(runs, line, name, stages):
    from groundup.config import build_recipe

    assert main(line) == 0
    (recipe, out), options = runs[0]
    assert recipe == build_recipe({"name": name, "stages": stages})
    assert out == Path("runs") / name
    assert options == {"only": [], "from_stage": None, "until": None, "rehearse": False}


def test_short_verbs_take_out_and_rehearse(runs):
    assert main(["merge", "x", "--out", "there", "--rehearse"]) == 0
    assert (runs[0][0][1], runs[0][1]["rehearse"]) == (Path("there"), True)


def test_chat_doctor_and_plan_go_through_their_doors(monkeypatch, folder):
    chats = door(monkeypatch, "groundup.infer.chat", "chat")
    assert (
        main(["chat", "runs/x", "--max-new-tokens", "9", "--temperature", "0", "--system", "Be brief."]) == 0
    )
    said = {
        "max_new_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": None,
        "system_prompt": "Be brief.",
        "verbose": False,
    }
    assert chats == [(("runs/x",), said)]
    doctors = door(monkeypatch, "groundup.stages.doctor", "doctor")
    assert main(["doctor", "--against", "runs/x", "--json"]) == 0
    assert doctors == [((Path("runs/x"), True), {})]
    plans = door(monkeypatch, "groundup.stages.plan", "show_plan")
    assert main(["plan", "my.yaml", "--set", "seed=5"]) == 0
    assert (plans[0][0][0].seed, plans[0][0][1]) == (5, Path("runs/my"))


def test_report_says_where_it_is(monkeypatch, folder, capsys):
    opened = []
    report = types.ModuleType("groundup.report")
    report.write_report = lambda run: run / "report.html"
    store = types.ModuleType("groundup.store")
    store.Run = types.SimpleNamespace(open=lambda path, create: opened.append((path, create)) or path)
    monkeypatch.setitem(sys.modules, "groundup.report", report)
    monkeypatch.setitem(sys.modules, "groundup.store", store)
    assert main(["report", "runs/x"]) == 0
    assert opened == [(Path("runs/x"), False)]
    assert capsys.readouterr().out == f"Report: {Path('runs/x/report.html')}\n"


def test_recipes_and_init(folder, capsys):
    assert main(["recipes"]) == 0
    assert "sft-dpo  " in capsys.readouterr().out
    assert main(["recipes", "--settings", "dpo"]) == 0
    assert "beta: 0.1" in capsys.readouterr().out
    assert main(["recipes", "--settings", "rewards"]) == 0
    assert "\n  function: " in capsys.readouterr().out
    assert main(["recipes", "--settings", "zzz"]) == 2
    assert main(["init", "sft-dpo"]) == 0
    assert (folder / "sft-dpo.yaml").is_file()
    assert "groundup run sft-dpo.yaml" in capsys.readouterr().out
    assert main(["init", "sft-dpo"]) == 2
    assert "there already" in capsys.readouterr().err
    assert main(["init", "sft-dpo", str(folder / "sub" / "x.yaml")]) == 0
    assert main(["init", "sft-dpo", "sub"]) == 0
    assert (folder / "sub" / "sft-dpo.yaml").is_file()


def test_a_wrong_recipe_ends_with_two_and_no_traceback(folder, capsys):
    (folder / "my.yaml").write_text(RECIPE.replace("data: rows", "dta: rows"))
    assert main(["run", "my.yaml"]) == 2
    captured = capsys.readouterr()
    assert "my.yaml:2" in captured.err
    assert "Did you mean `data`?" in captured.err
    assert "Traceback" not in captured.err + captured.out


def failing(error):
    def act(*_args, **_keywords):
        raise error

    return act


def test_interrupted(monkeypatch, folder, capsys):
    door(monkeypatch, "groundup.stages.run", "run_recipe", failing(KeyboardInterrupt()))
    assert main(["run", "my.yaml"]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted. Run the same command again to go on."


def test_an_unexpected_error_is_one_short_message(monkeypatch, folder, capsys):
    door(monkeypatch, "groundup.stages.run", "run_recipe", failing(ZeroDivisionError("by zero [x]")))
    monkeypatch.setattr(console, "_failure_log", None)
    assert main(["run", "my.yaml"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: by zero [x]" in said
    assert "bug" in said
    assert "GROUNDUP_TRACEBACK=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("GROUNDUP_TRACEBACK", "1")
    assert main(["run", "my.yaml"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_unexpected_error_in_a_run_names_its_log(monkeypatch, folder, capsys):
    def fail_in_a_run(*_args, **_keywords):
        with console.attach_log(folder / "run.log"):
            raise ZeroDivisionError("by zero")

    door(monkeypatch, "groundup.stages.run", "run_recipe", fail_in_a_run)
    assert main(["run", "my.yaml"]) == 1
    assert f"The traceback is in {folder / 'run.log'}" in capsys.readouterr().err
    assert "fail_in_a_run" in (folder / "run.log").read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_not_called_a_bug(monkeypatch, folder, capsys, number):
    door(
        monkeypatch, "groundup.stages.run", "run_recipe", failing(OSError(number, os.strerror(number), "x/y"))
    )
    assert main(["run", "my.yaml"]) == 2
    said = capsys.readouterr().err
    assert "x/y cannot be read or written" in said
    assert os.strerror(number) in said


def test_a_user_error_has_its_remedy(monkeypatch, folder, capsys):
    door(
        monkeypatch,
        "groundup.stages.run",
        "run_recipe",
        failing(UserError("Bad row.", where="a:3", fix="Mend.")),
    )
    assert main(["run", "my.yaml"]) == 2
    assert capsys.readouterr().err == "Error: Bad row.\n  where: a:3\n  fix:   Mend.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rnu", "demo"], "Did you mean `run`?"),
        (["pre-train"], "Did you mean `pretrain`?"),
        (["zzz"], "no verb `zzz`"),
        (["sft", "--modle", "x"], "--model"),
        (["sft", "--data", "x"], "--model"),
        (["run"], "R"),
        (["chat", "m", "--temperature", "-1"], "temperature"),
    ],
)
def test_usage_errors(capsys, line, said):
    assert main(line) == 2
    assert said in capsys.readouterr().err


def test_help_shows_every_verb_under_a_heading(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands)
    for heading, names in SECTIONS.items():
        assert f"\n{heading}:\n" in text
        for name in names:
            assert f"\n  {name} " in text
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.commands)
def test_each_verb_has_help_with_an_example_that_parses(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    examples = [shlex.split(line) for line in text.splitlines() if line.startswith("    groundup ")]
    assert examples
    for words in examples:
        cli.commands[words[1]].make_context(words[1], words[2:])
    for option in cli.commands[name].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            if "--data" in option.opts:
                assert "a file, folder, glob or hub name" in option.help and "epeatable" in option.help


def _python(*line, **env):
    root = Path(__file__).parents[2]
    path = {**os.environ, "PYTHONPATH": str(root / "src"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env}
    return subprocess.run([sys.executable, *line], env=path, capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy():
    code = (
        "import sys, resource\n"
        "from groundup.cli import main\n"
        "assert main(['--help']) == 0 and main(['sft', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'ruamel', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "assert used.ru_utime + used.ru_stime < 1.0, used\n"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr


def test_listing_recipes_needs_no_torch():
    code = "import sys; from groundup.cli import main; main(['recipes']); assert 'torch' not in sys.modules"
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr


def test_runs_as_a_module_and_exit_codes_reach_the_shell(tmp_path):
    done = _python("-m", "groundup", "run", str(tmp_path / "nothing.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no recipe")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe's end is closed differently")
def test_a_reader_that_has_gone_is_no_crash():
    reader, writer = os.pipe()
    os.close(reader)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "recipes"],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""
