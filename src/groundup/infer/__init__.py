"""Answers from a model: generating, sampling, loading, chatting."""

from groundup.infer.chat import chat
from groundup.infer.generate import Generation, generate
from groundup.infer.load import Loaded, load_for_inference

__all__ = ["Generation", "Loaded", "chat", "generate", "load_for_inference"]
