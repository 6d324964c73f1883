"""The losses of GRPO's family against TRL's own `compute_loss`: same answers, advantages, old log-probabilities."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl_steps import plain

from groundup.batch import Chain, Record, pack_step
from groundup.model import load_model
from groundup.objective import Answered, Grpo, means, step_total

PROMPTS, SAMPLES = 3, 4
LIMIT = 12
CLOSE = {"rel": 0, "abs": 1e-4}
CLIPPED = [f"clip_ratio/{name}" for name in ("low_mean", "low_min", "high_mean", "high_max", "region_mean")]


def made_up(vocabulary):
    """Prompts, answers, rewards, and how far old and reference policies are from the new one."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(5, vocabulary, draw.integers(3, 9)).tolist() for _ in range(PROMPTS)]
    answers = [
        draw.integers(5, vocabulary, draw.integers(1, LIMIT)).tolist() for _ in range(PROMPTS * SAMPLES)
    ]
    reward = torch.tensor(draw.normal(size=(PROMPTS, SAMPLES)), dtype=torch.float32)
    shift = {name: [draw.normal(0, 0.3, len(a)) for a in answers] for name in ("old", "ref")}
    return prompts, answers, reward, shift


def padded(rows, value, left=False):
    most = max(map(len, rows))
    return torch.tensor(
        [[value] * (most - len(r)) * left + r + [value] * (most - len(r)) * (not left) for r in rows]
    )


def trainer_of(kind, config, folder, tmp_path, **options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    arguments = config(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=LIMIT,
        **options,
    )
    rows = Dataset.from_list([{"prompt": "a"}] * PROMPTS)
    trainer = kind(
        plain(folder),
        lambda completions, **_: [0.0] * len(completions),
        arguments,
        rows,
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def their_inputs(prompts, answers, pad):
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    prompt_ids, completion_ids = padded(repeated, pad, left=True), padded(answers, pad)
    prompt_mask = padded([[1] * len(p) for p in repeated], 0, left=True)
    completion_mask = padded([[1] * len(a) for a in answers], 0)
    return {
        **{"prompt_ids": prompt_ids, "prompt_mask": prompt_mask},
        **{"completion_ids": completion_ids, "completion_mask": completion_mask},
        "num_items_in_batch": completion_mask.sum(),
    }


def their_logps(trainer, inputs):
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, inputs["completion_ids"].size(1)
        )[0]


def our_rows(prompts, answers, row_tokens):
    records = []
    for p, prompt in enumerate(prompts):
        chains, places = [], range(p * SAMPLES, (p + 1) * SAMPLES)
        for place in places:
            token = np.array(prompt + answers[place], dtype=np.int32)
            chains.append(Chain(token, np.arange(len(token)) >= len(prompt)))
        columns = {"place": tuple(map(float, places)), "truncated": (0.0,) * SAMPLES}
        records.append(Record(p, tuple(chains), columns))
    rows = pack_step(records, row_tokens)
    assert len(rows) > 1
    return rows


def with_shifted(rows, model, shift):
    """Columns `old_logp` and `ref_logp`: the model's own log-probabilities, moved."""
    found = []
    for row in rows:
        with torch.no_grad():
            logp = model(row, frozenset({"logp"})).logp_N
        places = row.sequence["place"].long().tolist()
        columns = {
            f"{name}_logp": logp
            + torch.tensor(np.concatenate([shift[name][p] for p in places]), dtype=torch.float32)
            for name in ("old", "ref")
        }
        found.append(row.with_columns(token=columns))
    return found


def our_step(objective, model, rows, reward):
    prepared = objective.prepare(Answered(rows, [list(range(len(rows)))], reward, {}))
    loss, metrics = 0.0, []
    for row in prepared.rows:
        part, found = objective.loss(model(row, objective.needs), row)
        part.backward()
        loss += float(part.detach())
        metrics.append(found)
    advantage = torch.zeros(PROMPTS * SAMPLES)
    for row in prepared.rows:
        advantage[row.sequence["place"].long()] = row.sequence["advantage"]
    return loss, means([prepared.metrics, step_total(metrics)]), advantage


def assert_same_gradients(ours, theirs):
    other = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, other[name].grad, rtol=0, atol=1e-4)


def assert_same_metrics(ours, trainer, names):
    logged = {name: trainer._metrics["train"][name][0] for name in names}
    assert {name: ours[name] for name in names} == pytest.approx(logged, **CLOSE)
    assert 0 < logged["clip_ratio/region_mean"] < 1
    return logged


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "grpo"},
        {"loss_type": "grpo", "beta": 0.2, "scale_rewards": "batch"},
        {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1},
        {"loss_type": "bnpo", "epsilon": 0.1},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"loss_type": "grpo", "beta": 0.1, "temperature": 0.7},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_grpo(options, chat_folder, tmp_path):
    trainer = trainer_of(GRPOTrainer, GRPOConfig, chat_folder, tmp_path, **options)
    ours = load_model(chat_folder, trainable=True)
    ours.temperature = options.get("temperature", 1.0)
    prompts, answers, reward, shift = made_up(ours.config.vocab_size)
    settings = {name: value for name, value in options.items() if name != "temperature"}
    settings.setdefault("epsilon_high", settings.get("epsilon", 0.2))
    objective = Grpo(max_completion_length=LIMIT, **settings)
    rows = with_shifted(our_rows(prompts, answers, 60), ours, shift)
    loss, metrics, advantage = our_step(objective, ours, rows, reward)

    inputs = their_inputs(prompts, answers, trainer.processing_class.pad_token_id)
    logp = their_logps(trainer, inputs)
    moved = {name: padded([list(map(float, s)) for s in shift[name]], 0.0) for name in shift}
    inputs |= {
        "advantages": advantage,
        "old_per_token_logps": logp + moved["old"],
        "ref_per_token_logps": logp + moved["ref"],
    }
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), **CLOSE)
    logged = assert_same_metrics(metrics, trainer, ["entropy", *CLIPPED, *["kl"] * bool(objective.beta)])
    assert logged["clip_ratio/high_max"] > logged["clip_ratio/high_mean"] > 0
    assert_same_gradients(ours, trainer.model)


def test_rloo(chat_folder, tmp_path):
    trainer = trainer_of(RLOOTrainer, RLOOConfig, chat_folder, tmp_path, epsilon_high=0.3)
    ours = load_model(chat_folder, trainable=True)
    prompts, answers, reward, shift = made_up(ours.config.vocab_size)
    shift = {name: [0.3 * part for part in parts] for name, parts in shift.items()}
    objective = Grpo("rloo", "leave_one_out", "none", epsilon_high=0.3, beta=0.05, kl_in="reward")
    rows = with_shifted(our_rows(prompts, answers, 60), ours, shift)
    loss, metrics, advantage = our_step(objective, ours, rows, reward)

    inputs = their_inputs(prompts, answers, trainer.processing_class.pad_token_id)
    logp = their_logps(trainer, inputs) * inputs["completion_mask"]
    old = logp + padded([list(map(float, s)) for s in shift["old"]], 0.0)
    inputs |= {"advantages": advantage, "old_logps": old.sum(1)}
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), **CLOSE)
    assert_same_metrics(metrics, trainer, CLIPPED)
    assert_same_gradients(ours, trainer.model)
