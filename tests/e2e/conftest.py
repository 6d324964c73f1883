"""A tiny model, small data and one finished run, made once; and `groundup` as a person calls it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_material import write_material

from groundup.cli import main

CONTEXT_TOKENS = 160
SPECIAL = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "red",
    "green",
    "blue",
    "stone",
    "river",
    "cloud",
    "seven",
    "apple",
    "winter",
    "lamp",
    "north",
    "song",
]

CHAIN = """\
description: all post-training stages
seed: 7
chat:
  system_prompt: Answer in a word.
stages:
  sft:
    from: {model}
    data: {chat}
    holdout: 0.2
    batch_size: 4
    max_steps: 4
    save_steps: 2
    logging_steps: 1
    learning_rate: 1e-2
    lora: {{r: 4, lora_alpha: 8}}
    dtype: float32
    sample_count: 2
    sample_tokens: 5
  dpo:
    from: sft
    data: {pairs}
    holdout: 0.25
    batch_size: 4
    max_steps: 3
    logging_steps: 1
    learning_rate: 1e-2
    dtype: float32
    sample_count: 2
    sample_tokens: 5
  merge:
    from: dpo
  eval:
    from: merge
    sample_count: 2
    sample_tokens: 5
"""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str) -> None:
        """Exit code 2, no traceback, and every part is in the message."""
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out
        remedies = ("fix:", "Usage:", "should be", "raise one")
        assert any(remedy in self.err for remedy in remedies), f"no remedy:\n{self.err}"
        for part in parts:
            assert part in self.err, f"{part!r} is not in:\n{self.err}"


def call(*line: Any, cwd: Path) -> Said:
    """`groundup LINE` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in line])
    return Said(code, out.getvalue(), err.getvalue())


def command(*line: Any) -> list[str]:
    return [sys.executable, "-m", "groundup", *map(str, line)]


def environment() -> dict[str, str]:
    """For a process of its own: this very package, one thread."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def shell(*line: Any, cwd: Path, typed: str = "") -> Said:
    """`python -m groundup LINE` in a process of its own, `typed` coming through a pipe."""
    done = subprocess.run(
        command(*line),
        cwd=cwd,
        env=environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file's inode and time of change: equal means untouched."""
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def conversation(number: int) -> dict[str, Any]:
    """Two turns, so that `loss_on` matters."""
    draw = random.Random(number)
    one, two, three = draw.sample(WORDS, 3)
    return {
        "messages": [
            {"role": "user", "content": f"Say {one} number {number}."},
            {"role": "assistant", "content": one},
            {"role": "user", "content": f"Now {two} and {three}."},
            {"role": "assistant", "content": f"{two} {three}"},
        ]
    }


def pair(number: int) -> dict[str, Any]:
    one, two = random.Random(number).sample(WORDS, 2)
    return {"prompt": f"Name {one} {number}.", "chosen": one, "rejected": f"{two} {two} {two}"}


def write_model(folder: Path, template: str | None = CHATML) -> Path:
    """A random Llama of two layers and width 32 with a small trained tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from groundup.tokenizer import train_bpe

    rows = [conversation(i) for i in range(40)] + [pair(i) for i in range(40)]
    tokenizer = train_bpe((json.dumps(row) for row in rows), 360)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL, "eos_token": SPECIAL[1]})
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Chain:
    """A recipe of all post-training stages that was run once."""

    folder: Path
    recipe: Path
    root: Path
    said: Said


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "base", template=None)


@pytest.fixture(scope="session")
def chat_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "chat.jsonl", [conversation(i) for i in range(24)])


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", [pair(i) for i in range(16)])


@pytest.fixture(scope="session")
def chain_text(model: Path, chat_file: Path, pairs_file: Path) -> str:
    return CHAIN.format(model=model, chat=chat_file, pairs=pairs_file)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, chain_text: str) -> Chain:
    """The run that tests look at and never change."""
    folder = tmp_path_factory.mktemp("chain")
    recipe = folder / "chain.yaml"
    recipe.write_text(chain_text)
    said = shell("run", "chain.yaml", cwd=folder)
    assert said.code == 0, said.out + said.err
    return Chain(folder, recipe, folder / "runs" / "chain", said)


@pytest.fixture
def copy_of_chain(chain: Chain, tmp_path: Path) -> Chain:
    """A copy to change."""
    shutil.copytree(chain.folder, tmp_path, dirs_exist_ok=True)
    return Chain(tmp_path, tmp_path / "chain.yaml", tmp_path / "runs" / "chain", chain.said)


@pytest.fixture(scope="session")
def call_in() -> Callable[..., Said]:
    """`groundup LINE` in this process, in a folder that is named: for what several tests look at."""
    return lambda folder, *line: call(*line, cwd=folder)


@pytest.fixture
def groundup(tmp_path: Path) -> Callable[..., Said]:
    """`groundup LINE` in this process, in a folder of the test's own."""
    return lambda *line, cwd=tmp_path: call(*line, cwd=cwd)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Path]]:
    """Models and data sets of the shipped recipes, in little, by their names on a hub."""
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def field(
    loopback_hub: Any,
    material: tuple[dict[str, Path], dict[str, Path]],
    groundup: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Said]:
    """`groundup LINE` beside a hub that has these, which must end well; typed: what comes through a pipe."""
    models, data = material
    for name, folder in models.items():
        loopback_hub.add_model(name, folder)
    for name, folder in data.items():
        loopback_hub.add_dataset(name, folder)

    def run(*line: Any, typed: str = "", refused: bool = False) -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        said = groundup(*line)
        assert (said.code == 0) != refused, said.out + said.err
        return said

    return run


@pytest.fixture
def in_shell(tmp_path: Path) -> Callable[..., Said]:
    """`python -m groundup LINE` in a process of its own."""
    return lambda *line, cwd=tmp_path, typed="": shell(*line, cwd=cwd, typed=typed)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The same, but it returns while the command runs; killed at the end if it still does."""
    started = []

    def begin(*line: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command(*line), cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows, or a text, into the test's folder."""

    def into(name: str, content: Sequence[Any] | str) -> Path:
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
            return tmp_path / name
        return write_rows(tmp_path / name, content)

    return into


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, int]]]:
    return files_below


@pytest.fixture(name="conversation", scope="session")
def _conversation() -> Callable[[int], dict[str, Any]]:
    return conversation


@pytest.fixture(name="pair", scope="session")
def _pair() -> Callable[[int], dict[str, Any]]:
    return pair
