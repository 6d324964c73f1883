"""Names of models and data, as people type them, to files on this machine."""

from groundup.hub.cache import cache_beside
from groundup.hub.datafiles import HubDataset, find_dataset, resolve_data
from groundup.hub.models import ModelSource, resolve_model
from groundup.hub.runs import list_models
from groundup.hub.tokenizers import resolve_tokenizer

__all__ = [
    "HubDataset",
    "ModelSource",
    "cache_beside",
    "find_dataset",
    "list_models",
    "resolve_data",
    "resolve_model",
    "resolve_tokenizer",
]
