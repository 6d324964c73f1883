"""The chat in a real (pseudo-)terminal: streaming, ctrl-C in an answer, ctrl-D at the prompt."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")

# Slow enough to be interrupted in the middle of an answer. The second chat is there to be left in another way.
CHILD = """
import sys, time
from groundup.infer import chat, load
load.fast_dtype = lambda *_: "float32"
def slow(model, prompts, *, on_token, **_):
    tokenizer = load.load_tokenizer(sys.argv[1])
    questions = tokenizer.decode(prompts[0]).count("<|im_start|>user")
    for token in tokenizer(f"({questions} prompts) " + "one two three 你好 " * 40)["input_ids"]:
        on_token(0, token)
        time.sleep(0.005)
sys.modules["groundup.infer.conversation"].generate = slow
chat(sys.argv[1])
chat(sys.argv[1])
"""
WHOLE_ANSWER = "one two three 你好 " * 40
PATIENCE_SECONDS = 60


class Terminal:
    """A child that talks to a terminal, and what a person would see and type."""

    def __init__(self, model: Path) -> None:
        self.master, child_side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(model)],
            stdin=child_side,
            stdout=child_side,
            stderr=child_side,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env=os.environ | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        )
        os.close(child_side)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str) -> str:
        """What was shown up to and including `text`; it is not looked at again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode(errors="replace")
                except OSError as gone:  # Linux says so when the child has closed its side
                    raise AssertionError(f"{text!r} never came: {self.seen!r}") from gone
        before, _, self.seen = self.seen.partition(text)
        return before + text


def _take_terminal() -> None:
    """Make it the child's own, so that ctrl-C reaches it as a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(model_folder: Path) -> Iterator[Terminal]:
    terminal = Terminal(model_folder)
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.master)


def test_answers_stream_and_stop_and_the_conversation_goes_on(terminal: Terminal):
    terminal.wait_for("/help lists the commands")
    terminal.wait_for("> ")
    terminal.type("Count.\n")
    terminal.wait_for("one two three")
    terminal.type("\x03")
    assert WHOLE_ANSWER not in terminal.wait_for("(stopped)")
    terminal.wait_for("> ")
    terminal.type("/model ./no/such/model\n")
    terminal.wait_for("no/such/model")
    terminal.wait_for("> ")
    terminal.type("Again.\n")
    terminal.wait_for("(2 prompts)")  # what was said before the stop is part of the conversation
    terminal.wait_for("你好")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.wait_for("> ")
    terminal.type("\x03")
    terminal.wait_for("Goodbye.")
    terminal.wait_for("> ")  # the second chat
    terminal.type("\x04")
    terminal.wait_for("Goodbye.")
    assert terminal.process.wait(PATIENCE_SECONDS) == 0
