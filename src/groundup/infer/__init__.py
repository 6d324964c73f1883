"""Answers from a model: generating, sampling, loading, chatting."""

from groundup.infer.chat import chat
from groundup.infer.generate import LocalGenerator, generate
from groundup.infer.load import Loaded, load_for_inference
from groundup.infer.progress import answer_progress
from groundup.infer.request import Generation, Generator, Request
from groundup.infer.sample import Sampling

__all__ = [
    "Generation",
    "Generator",
    "Loaded",
    "LocalGenerator",
    "Request",
    "Sampling",
    "answer_progress",
    "chat",
    "generate",
    "load_for_inference",
]
