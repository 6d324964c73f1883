"""The DPO family against TRL's trainers in float32: each pair's loss and numbers, and the gradients of a batch.

On rows that are there everywhere, and with GROUNDUP_DATA on HH-RLHF's.
"""

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from test_trl import PAIRS, assistant, user
from trl import KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl_steps import (
    BETA,
    CLOSE,
    config,
    dpo_records,
    dpo_trainer,
    plain,
    record_of,
    with_reference,
    write_adapter,
)

from groundup.batch import Record, pack_step
from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_pairs
from groundup.model import load_adapter, load_model, merge_lora
from groundup.objective import PREFERENCE_LOSSES, Kto, Orpo, SimPo, means
from groundup.stages.preference import mismatched
from groundup.tokenizer import load_tokenizer

MOST_CHARS = 40
ROW_TOKENS = 190
WITH_REFERENCE = {
    "sigmoid": {},
    "hinge": {},
    "ipo": {},
    "robust": {"label_smoothing": 0.1},
    "sigmoid_norm": {},
}


@pytest.fixture(scope="module")
def tokenizer(chat_folder):
    return load_tokenizer(chat_folder)


@pytest.fixture(scope="module")
def adapter(chat_folder, tmp_path_factory):
    return write_adapter(chat_folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(params=["generated", "real"])
def pairs(request):
    """Pairs with one turn before the answers."""
    if request.param == "generated":
        return PAIRS
    folder = request.getfixturevalue("groundup_data") / "preference/hh_rlhf_test"
    read = read_pairs(DataSettings(path=[str(folder)], subset=40, max_bad_rows=0.9), Ledger())
    cut = [(p.prompt[-1].content, p.chosen[-1].content, p.rejected[-1].content) for p in read]
    made = [
        {
            "prompt": [user(q[:MOST_CHARS])],
            "chosen": [assistant(c[:MOST_CHARS])],
            "rejected": [assistant(r[:MOST_CHARS])],
        }
        for q, c, r in cut
        if c[:MOST_CHARS] != r[:MOST_CHARS]
    ][:8]
    assert len(made) == 8
    return made


@pytest.fixture
def models(chat_folder, adapter):
    """A policy that has gone away from the base, in theirs and in ours, all weights trained."""
    theirs = peft.PeftModel.from_pretrained(plain(chat_folder), adapter).merge_and_unload()
    theirs.requires_grad_(True)
    ours = load_model(chat_folder)
    load_adapter(ours, adapter)
    return theirs, merge_lora(ours).requires_grad_(True)


def numbers(objective, model, records, row_tokens=ROW_TOKENS):
    """Loss and metrics of a step of these records; its gradients are left in the model."""
    total, metrics = 0.0, []
    for row in pack_step(records, row_tokens):
        loss, found = objective.loss(model(row, objective.needs), row)
        loss.backward()
        total += loss.item()
        metrics.append(found)
    return total, means(metrics)


def assert_same_gradients(ours, theirs):
    found = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    names = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert names == found.keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, found[name], rtol=1e-3, atol=1e-4)
    assert max(float(grad.abs().max()) for grad in found.values()) > 1e-3


@pytest.mark.parametrize("loss", WITH_REFERENCE)
def test_losses_with_a_reference(chat_folder, tokenizer, models, pairs, tmp_path, loss):
    theirs, ours = models
    options = WITH_REFERENCE[loss]
    trainer = dpo_trainer(theirs, plain(chat_folder), tokenizer, pairs, tmp_path, loss_type=[loss], **options)
    trainer.model.eval()
    records = with_reference(dpo_records(trainer), load_model(chat_folder), ROW_TOKENS)
    objective = PREFERENCE_LOSSES[loss](BETA, **options)
    losses = []
    for row, record in zip(trainer.train_dataset, records, strict=True):
        with torch.no_grad():
            expected = trainer.compute_loss(trainer.model, trainer.data_collator([row])).item()
        found, metrics = numbers(objective, ours, [record])
        assert found == pytest.approx(expected, **CLOSE)
        told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
        assert metrics == pytest.approx(
            {"loss": expected} | {n: told[n] for n in metrics if n != "loss"}, **CLOSE
        )
        losses.append(found)
    assert max(losses) - min(losses) > 1e-3
    ours.zero_grad()
    trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset))).backward()
    numbers(objective, ours, records)
    assert_same_gradients(ours, trainer.model)


def halves(row, side):
    ids = row[f"{side}_input_ids"]
    return ids, np.array(row[f"{side}_labels"]) != -100


def experimental(kind, settings, model, tokenizer, rows, folder, **options):
    arguments = config(settings, folder, beta=BETA, **options)
    return kind(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def experimental_records(trainer, share=()):
    return [
        Record(
            index, record_of(index, halves(row, "chosen"), halves(row, "rejected")).chains, token_share=share
        )
        for index, row in enumerate(trainer.train_dataset)
    ]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_simpo(tokenizer, models, pairs, tmp_path, label_smoothing):
    theirs, ours = models
    options = {"simpo_gamma": 0.7, "label_smoothing": label_smoothing}
    more = {"loss_type": "simpo", "cpo_alpha": 0.0, "max_length": 256}
    trainer = experimental(CPOTrainer, CPOConfig, theirs, tokenizer, pairs, tmp_path, **options, **more)
    trainer.model.eval()
    batch = trainer.data_collator(list(trainer.train_dataset))
    expected, told = trainer.get_batch_loss_metrics(trainer.model, batch)
    found, metrics = numbers(SimPo(BETA, **options), ours, experimental_records(trainer))
    assert found == pytest.approx(expected.item(), **CLOSE)
    for name in (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
    ):
        assert metrics[name] == pytest.approx(float(told[name]), **CLOSE), name
    expected.backward()
    assert_same_gradients(ours, trainer.model)


def test_orpo_but_for_the_prompts_in_trls_nll(tokenizer, models, pairs, tmp_path):
    """Both parts by themselves: the odds ratio is TRL's, the NLL transformers' own loss of the answers."""
    theirs, ours = models
    trainer = experimental(ORPOTrainer, ORPOConfig, theirs, tokenizer, pairs, tmp_path)
    trainer.model.eval()
    records = experimental_records(trainer, Orpo.token_share)
    with torch.no_grad():
        batch = trainer.data_collator(list(trainer.train_dataset))
        expected, told = trainer.get_batch_loss_metrics(trainer.model, batch)
        logps, tokens = 0.0, 0
        for record in records:
            chain = record.chains[0]
            token = torch.from_numpy(chain.token).long()
            labels = torch.where(torch.from_numpy(chain.scored), token, -100)
            count = int(chain.scored.sum())
            logps += float(theirs(token[None], labels=labels[None]).loss) * count
            tokens += count
    found, metrics = numbers(Orpo(BETA), ours, records)
    for name in (
        "log_odds_ratio",
        "log_odds_chosen",
        "rewards/margins",
        "rewards/accuracies",
        "logps/rejected",
    ):
        assert metrics[name] == pytest.approx(float(told[name]), **CLOSE), name
    assert metrics["nll_loss"] == pytest.approx(logps / tokens, **CLOSE)
    assert found == pytest.approx(expected.item() - told["nll_loss"] + logps / tokens, **CLOSE)
    assert metrics["loss"] == pytest.approx(found, **CLOSE)


@pytest.mark.parametrize("weights", [{}, {"desirable_weight": 1.3, "undesirable_weight": 0.6}])
def test_kto(chat_folder, tokenizer, models, pairs, tmp_path, weights):
    """The whole step at once: labels of both kinds, and the KL of mismatched answers, as TRL pairs them."""
    theirs, ours = models
    rows = [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for number, pair in enumerate(pairs)
        for side in (("chosen", "rejected") if number % 2 else ("rejected",))
    ]
    arguments = config(
        KTOConfig, tmp_path, beta=BETA, **weights, **{"per_device_train_batch_size": len(rows)}
    )
    trainer = KTOTrainer(
        theirs,
        plain(chat_folder),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    records = []
    for index, row in enumerate(trainer.train_dataset):
        ids, prompt = row["prompt_ids"] + row["completion_ids"], len(row["prompt_ids"])
        records.append(record_of(index, (ids, np.arange(len(ids)) >= prompt)))
    others = mismatched(records, 10_000)
    for row, other in zip(trainer.train_dataset, others, strict=True):
        assert other.chains[0].token.tolist() == row["prompt_ids"] + row["KL_completion_ids"]
    with torch.no_grad():
        ratios = [
            now.sequence["ref_logp"][0] - then.sequence["ref_logp"][0]
            for now, then in zip(
                with_reference(others, ours, ROW_TOKENS),
                with_reference(others, load_model(chat_folder), ROW_TOKENS),
                strict=True,
            )
        ]
    kl = max(0.0, float(np.mean(ratios)))
    ready = [
        Record(one.index, one.chains, one.sequence, {"label": float(row["label"]), "kl": kl})
        for one, row in zip(with_reference(records, load_model(chat_folder), ROW_TOKENS), rows, strict=True)
    ]
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    found, metrics = numbers(Kto(BETA, **weights), ours, ready)
    told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert found == pytest.approx(expected.item(), **CLOSE)
    names = ["kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"]
    assert {n: metrics[n] for n in names} == pytest.approx({n: told[n] for n in names}, **CLOSE)
    expected.backward()
    assert_same_gradients(ours, trainer.model)
