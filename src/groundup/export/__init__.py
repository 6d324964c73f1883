"""Models as others take them: a merged Hugging Face folder."""

from groundup.export.merge import merge_adapter

__all__ = ["merge_adapter"]
