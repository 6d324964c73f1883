"""How a stage begins that trains a model which is there already: found and checked first, its weights read later."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config.schema import ChatSettings
from groundup.engine import Exactness
from groundup.infer.load import check_vocabulary
from groundup.model import LanguageModel, ModelConfig, StockConfig, read_config
from groundup.stages.context import Context
from groundup.stages.models import ModelFolders, find_model
from groundup.stages.training import Compute, choose_compute, choose_layout
from groundup.stages.weights import base_model, starting_model
from groundup.tokenizer import Tokenizer, load_tokenizer
from groundup.tokenizer.template import Template


@dataclass(frozen=True)
class Found:
    """The model that a stage starts from, by what is known without its weights."""

    folders: ModelFolders
    tokenizer: Tokenizer
    config: ModelConfig | StockConfig


@dataclass(frozen=True)
class Opened:
    """The model as the stage begins, and how this machine runs it."""

    model: LanguageModel
    compute: Compute
    exact: Exactness


def find_start(context: Context) -> Found:
    """The model that `from` names. Raises UserError where its tokenizer and its weights do not go together."""
    folders = find_model(context, context.settings.from_)
    tokenizer = with_template(load_tokenizer(folders.tokenizer), context.recipe.chat)
    config = read_config(folders.base)
    check_vocabulary(tokenizer, config, f"stages.{context.name}.from")
    return Found(folders, tokenizer, config)


def with_template(tokenizer: Tokenizer, chat: ChatSettings) -> Tokenizer:
    """The tokenizer with the recipe's chat template, so that whoever opens the saved model has it too."""
    if chat.chat_template:
        tokenizer.chat_template = Template.of(tokenizer, chat).source
    return tokenizer


def open_model(context: Context, found: Found, max_length: int) -> Opened:
    """Its weights, with the adapter or all of them to train, in the layout that is exact for texts of that length."""
    compute = choose_compute(context, found.config)
    base = base_model(context, found.folders, compute)
    exact = choose_layout(context, base, max_length)  # before it has an adapter
    return Opened(starting_model(context, base, found.folders, compute), compute, exact)
