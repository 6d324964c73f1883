"""Classifiers and reward models: any folder that transformers opens for sequence classification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.model.stock_files import quiet
from groundup.store import files
from groundup.tokenizer import load_tokenizer

BATCH_TOKENS = 4096
"""Texts go through the model in batches of about so many tokens, padding included."""


class Classifier:
    """transformers' model with its tokenizer and the names of its classes, one for a reward model."""

    def __init__(self, model: Any, tokenizer: Any, labels: Sequence[str]) -> None:
        self.model, self.tokenizer, self.labels = model, tokenizer, list(labels)

    @property
    def most_tokens(self) -> int | None:
        """Tokens that it can read; None where its configuration tells no limit."""
        limits = [self.tokenizer.model_max_length]
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa's positions begin behind the padding's.
            embeddings = [
                each for each in self.model.modules() if type(each).__name__.endswith("RobertaEmbeddings")
            ]
            limits.append(positions - (self.model.config.pad_token_id + 1 if embeddings else 0))
        return min((limit for limit in limits if limit < 10**9), default=None)

    @torch.inference_mode()
    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Float32 [N, classes] of texts as token ids, as the plain model says of each text by itself.

        Padding stands on the right. A model without a padding token, which otherwise takes one text at a time, gets an
        id that no text of the batch has.
        """
        order = sorted(range(len(texts)), key=lambda text: len(texts[text]))
        found: list[Tensor] = []
        first = 0
        while first < len(order):
            last = first + 1
            while last < len(order) and len(texts[order[last]]) * (last + 1 - first) <= BATCH_TOKENS:
                last += 1
            found.append(self._batch([texts[text] for text in order[first:last]]))
            first = last
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(found)[back]

    def _batch(self, texts: Sequence[Sequence[int]]) -> Tensor:
        config = self.model.config.get_text_config()
        before = config.pad_token_id
        longest = max(map(len, texts))
        pad = _unused(texts, config.vocab_size) if before is None else before
        token_BS = torch.tensor([[*text, *([pad] * (longest - len(text)))] for text in texts])
        mask_BS = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        config.pad_token_id = pad
        try:
            output = self.model(
                input_ids=token_BS.to(self.model.device), attention_mask=mask_BS.to(self.model.device)
            )
        finally:
            config.pad_token_id = before
        return output.logits.float().cpu()

    def probabilities(self, logits_NC: Tensor) -> Tensor:
        """Of each class: together 1, or each by itself where a text may have several."""
        several = getattr(self.model.config, "problem_type", None) == "multi_label_classification"
        return logits_NC.sigmoid() if several or len(self.labels) == 1 else logits_NC.softmax(-1)


def class_names(folder: Path | str) -> list[str]:
    """What a classifier's configuration calls its outputs, in order; `LABEL_0` is transformers' for one without a name.

    Raises UserError where the folder holds no classifier, or its classes cannot be told.
    """
    config = files.read_json(Path(folder) / "config.json")
    named = " ".join(config.get("architectures") or ["nothing"])
    if "SequenceClassification" not in named:
        raise UserError(
            f"{folder} holds no classifier",
            why=f"config.json says {named}, not a model for sequence classification",
            fix="name a classifier's folder, or train a reward model",
        )
    given = config.get("id2label") or {
        str(number): f"LABEL_{number}" for number in range(config.get("num_labels") or 2)
    }
    if set(given) != {str(number) for number in range(len(given))}:
        raise UserError(
            "the classifier's classes cannot be told",
            where=str(Path(folder) / "config.json"),
            why=f"id2label numbers them {', '.join(given)}",
            fix="number them from 0, in the order of the model's outputs",
        )
    return [str(given[str(number)]) for number in range(len(given))]


def open_classifier(folder: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """In float32. Raises UserError where the folder holds no classifier with a trained head."""
    from transformers import AutoModelForSequenceClassification

    folder = Path(folder)
    labels = class_names(folder)
    try:
        with quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a broken folder makes the library raise
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError("the classifier cannot be opened", where=str(folder), why=reason) from error
    if report["missing_keys"]:
        raise UserError(
            "the classifier lacks weights",
            where=str(folder),
            why=f"missing: {', '.join(sorted(report['missing_keys'])[:3])}",
            fix="copy or download the folder again",
        )
    return Classifier(model.eval().to(device), load_tokenizer(folder), labels)


def _unused(texts: Sequence[Sequence[int]], vocabulary: int) -> int:
    used = {token for text in texts for token in text}
    return next((token for token in range(vocabulary) if token not in used), 0)
