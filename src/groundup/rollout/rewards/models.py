"""Rewards that are models: a classifier's opinion of the text, or a reward model's of the answer to its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundup import hub
from groundup.config.rewards import RewardSettings
from groundup.config.schema import ChatSettings
from groundup.data.types import Message
from groundup.errors import UserError
from groundup.hub import ModelSource
from groundup.hub.runs import only_scores
from groundup.infer.load import base_of, plain_folder, tokenizer_folder
from groundup.infer.origin import chat_settings, run_of
from groundup.model.classifier import Classifier, class_names, open_classifier
from groundup.model.reward import classifier_from_adapter
from groundup.rollout.rewards.child import Asked
from groundup.rollout.rewards.process import Judged
from groundup.rollout.rewards.shipped import text_of
from groundup.store import Run
from groundup.tokenizer import load_tokenizer
from groundup.tokenizer.chat import BadConversation, render_whole

POSITIVE = ("positive", "pos")
ONE_NUMBER = ("LABEL_0",)
"""What the output of a reward model's adapter is called."""


class ModelReward:
    """`sentiment` and `model`. Raises UserError where the folder is no classifier of the kind that is meant."""

    def __init__(self, settings: RewardSettings, run: Run | None, device: str) -> None:
        self.settings = settings
        source = hub.resolve_model(settings.model or "", run)
        self.classifier = _opened(source, run, device)
        self.chat = chat_settings(run_of(source.path))
        self.column = _column(self.classifier.labels, settings)

    def judge(self, asked: Asked) -> Judged:
        texts: list[list[int]] = []
        values: list[float | str | None] = []
        for prompt, completion in zip(asked.prompts, asked.completions, strict=True):
            try:
                token = self._tokens(prompt, completion)
            except BadConversation as problem:
                values.append(str(problem))
                continue
            most = self.classifier.most_tokens
            if most is not None and len(token) > most:
                values.append(
                    f"its text has {len(token):,} tokens, and {self.settings.model} reads at most {most:,}"
                )
            elif not token:
                values.append("its text is empty")
            else:
                texts.append(token)
                values.append(None)
        scores = iter(self._scores(texts))
        return Judged([next(scores) if value is None else value for value in values])

    def end(self) -> None:
        """Nothing runs between calls."""

    def _scores(self, texts: list[list[int]]) -> list[float]:
        if not texts:
            return []
        logits_NC = self.classifier.logits(texts)
        if self.settings.function == "sentiment" and self.settings.score == "probability":
            logits_NC = self.classifier.probabilities(logits_NC)
        return [float(value) for value in logits_NC[:, self.column]]

    def _tokens(self, prompt: Any, completion: Any) -> list[int]:
        tokenizer = self.classifier.tokenizer
        if self.settings.function == "sentiment":
            said = text_of(completion)
            if self.settings.include_prompt:
                said = _joined(prompt, completion)
            return list(tokenizer(said, verbose=False)["input_ids"])
        if isinstance(prompt, str):
            return list(tokenizer(_joined(prompt, completion), verbose=False)["input_ids"])
        messages = [Message(each["role"], each.get("content") or "") for each in [*prompt, *completion]]
        return [int(token) for token in render_whole(tokenizer, messages, self._chat()).token]

    def _chat(self) -> ChatSettings:
        """The template that the reward model was trained with is in its folder."""
        if getattr(self.classifier.tokenizer, "chat_template", None):
            return self.chat.model_copy(update={"chat_template": None})
        return self.chat


def _opened(source: ModelSource, run: Run | None, device: str) -> Classifier:
    """A classifier's folder, or a reward model's adapter on the language model that it was trained on."""
    if source.kind == "folder":
        return open_classifier(source.path, device)
    _check_kind(source)
    base, _ = base_of(source)
    folder = plain_folder(base, run)
    tokenizer = load_tokenizer(tokenizer_folder([source.path, folder]))
    model = classifier_from_adapter(folder, source.path, tokenizer.pad_token_id)
    return Classifier(model.to(device), tokenizer, [model.config.id2label[0]])


def check_model_reward(settings: RewardSettings, source: ModelSource) -> None:
    """What the configuration tells of `model`, before anything is trained or opened. Raises UserError."""
    _check_kind(source)
    _column(class_names(source.path) if source.kind == "folder" else ONE_NUMBER, settings)


def _check_kind(source: ModelSource) -> None:
    if source.kind == "folder" or (source.kind == "adapter" and only_scores(source.path)):
        return
    kind = "an adapter of a language model" if source.kind == "adapter" else "a GGUF file"
    raise UserError(
        f"{source.name} is no classifier's folder",
        why=f"it is {kind}",
        fix="name a classifier or a reward model",
    )


def _joined(prompt: Any, completion: Any) -> str:
    between = "" if isinstance(prompt, str) else "\n"
    return text_of(prompt) + between + text_of(completion)


def _column(labels: Sequence[str], settings: RewardSettings) -> int:
    """Which of the classifier's outputs is the reward. Raises UserError."""
    listed = ", ".join(labels)
    if settings.function == "model":
        if len(labels) == 1:
            return 0
        raise UserError(
            f"{settings.model} is no reward model: it has {len(labels)} classes, not one number",
            why=f"its classes are {listed}",
            fix="name a reward model, or use function: sentiment with a label",
        )
    if settings.label is not None:
        if settings.label in labels:
            return labels.index(settings.label)
        raise UserError(
            f"the classifier {settings.model} has no class {settings.label!r}",
            why=f"its classes are {listed}",
            fix="set label to one of these",
        )
    found = [place for place, label in enumerate(labels) if label.lower() in POSITIVE]
    if len(found) == 1:
        return found[0]
    if len(labels) == 1:
        raise UserError(
            f"{settings.model} has no classes: it gives a text one number, as a reward model does",
            fix=f"use function: model, or set label: {listed} if that number is to be taken for a probability",
        )
    raise UserError(
        f"the classifier {settings.model} has no class that is called positive",
        why=f"its classes are {listed}",
        fix="set label to the class that is to be rewarded, or name another classifier",
    )
