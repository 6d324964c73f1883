"""torchrun and accelerate in front of `-m groundup`, as people who come from them type it."""

import os
import subprocess
import sys

import pytest

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes"]


def launch(*line, cwd):
    return subprocess.run(
        [sys.executable, *map(str, line)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([*TORCHRUN, "1"], id="torchrun", marks=pytest.mark.slow),
        pytest.param([*ACCELERATE, "1"], id="accelerate", marks=pytest.mark.slow),
    ],
)
def test_one_process_simply_works(launcher, model, chat_file, tmp_path):
    stage = ["sft", "--model", model, "--data", chat_file, "--out", "there"]
    quick = [f"--set={key}" for key in ("max_steps=2", "dtype=float32", "batch_size=4", "sample_count=0")]
    done = launch(*launcher, "-m", "groundup", *stage, *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "there" / "sft" / "final" / "adapter_model.safetensors").is_file()


def test_several_processes_are_refused_at_once(tmp_path):
    """By the first of them alone, before a file is looked for."""
    done = launch(*TORCHRUN, "2", "-m", "groundup", "run", "demo", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("Error: 2 processes were started, and Groundup works in one.") == 1
    assert "--nproc-per-node 1" in done.stderr and not (tmp_path / "runs").exists()
