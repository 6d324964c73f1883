"""A sentiment classifier out of labelled reviews: a BERT of one layer, trained from scratch in a minute.

It becomes a folder that `AutoModelForSequenceClassification` opens, so `function: sentiment` takes it.
"""

from __future__ import annotations

import random
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LABELS = ("negative", "positive")
HELD_OUT_FROM = 800
"""Of the 1,000 files of a label those from this number on are held out."""
PIECE_WORDS = 32
"""Reviews are cut into pieces about as long as the answers that will be judged."""
VOCABULARY, SEEN_TIMES = 12_000, 4
WIDTH, HEADS = 64, 4
EPOCHS, BATCH, LEARNING_RATE, DECAY, DROPOUT = 4, 128, 1e-3, 0.1, 0.3
MOST_TOKENS = 512


@dataclass(frozen=True)
class Review:
    sentences: tuple[str, ...]
    label: int
    held_out: bool


def read_reviews(archive: Path) -> list[Review]:
    """NLTK's movie_reviews.zip (Pang and Lee, 2004): 2,000 reviews, a sentence a line, all of it in lower case."""
    found = []
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist()):
            if match := re.search(r"/(neg|pos)/cv(\d+)_\d+\.txt$", name):
                lines = file.read(name).decode("utf-8", "replace").splitlines()
                sentences = tuple(tidy(line) for line in lines if line.strip())
                found.append(Review(sentences, int(match[1] == "pos"), int(match[2]) >= HELD_OUT_FROM))
    return found


def tidy(sentence: str) -> str:
    """Tokenized text as people write it."""
    sentence = re.sub(r'\s*["`_*]+\s*', " ", sentence).strip()
    sentence = re.sub(r"\s+([.,;:!?)])", r"\1", sentence)
    sentence = re.sub(r"\(\s+", "(", sentence)
    sentence = re.sub(r"\bi\b", "I", sentence)
    return sentence[:1].upper() + sentence[1:]


def pieces_of(review: Review) -> list[str]:
    words = " ".join(review.sentences).split()
    return [" ".join(words[i : i + PIECE_WORDS]) for i in range(0, len(words) - PIECE_WORDS, PIECE_WORDS)]


def make_classifier(reviews: list[Review], folder: Path) -> dict[str, Any]:
    """Write the folder; what it gets right of held-out pieces and whole reviews, as it is when opened again."""
    from groundup.model.classifier import open_classifier

    train = [(text, r.label) for r in reviews if not r.held_out for text in pieces_of(r)]
    heldout = [(text, r.label) for r in reviews if r.held_out for text in pieces_of(r)]
    whole = [(" ".join(r.sentences), r.label) for r in reviews if r.held_out]
    tokenizer = word_tokenizer([text for text, _ in train])
    fitted(tokenizer, train).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    opened = open_classifier(folder)

    def accuracy(rows: list[tuple[str, int]]) -> float:
        texts = [list(ids)[:MOST_TOKENS] for ids in opened.tokenizer([text for text, _ in rows])["input_ids"]]
        right_N = opened.logits(texts).argmax(-1) == torch.tensor([label for _, label in rows])
        return float(right_N.float().mean())

    counts = {"pieces": len(train), "heldout_pieces": len(heldout), "heldout_reviews": len(whole)}
    return {**counts, "accuracy": accuracy(heldout), "accuracy_of_reviews": accuracy(whole)}


def word_tokenizer(texts: list[str]) -> Any:
    """Words in lower case, those that came several times."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]"]
    trainer = trainers.WordLevelTrainer(
        vocab_size=VOCABULARY, min_frequency=SEEN_TIMES, special_tokens=special, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", special.index("[CLS]"))]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=MOST_TOKENS, **named)


def fitted(tokenizer: Any, rows: list[tuple[str, int]]) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        max_position_embeddings=MOST_TOKENS,
        hidden_dropout_prob=DROPOUT,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    chance = random.Random(0)
    for _ in range(EPOCHS):
        order = chance.sample(range(len(rows)), len(rows))
        for start in range(0, len(order) - BATCH, BATCH):
            some = [rows[i] for i in order[start : start + BATCH]]
            batch = tokenizer(
                [text for text, _ in some], padding=True, return_tensors="pt", return_token_type_ids=False
            )
            loss = model(**batch, labels=torch.tensor([label for _, label in some])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
