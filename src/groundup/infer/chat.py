"""`groundup chat`: a conversation in the terminal, or through a pipe."""

from __future__ import annotations

import contextlib
import re
import sys

from groundup import console
from groundup.data.types import Message
from groundup.errors import UserError
from groundup.infer.about import about_model, other_models, why_nonsense
from groundup.infer.conversation import Options, Reply, fit, fit_text, repeats, stream_reply
from groundup.infer.load import Loaded, load_for_inference
from groundup.infer.origin import run_of
from groundup.store import Run
from groundup.tokenizer.template import special_tokens

LEAVE = frozenset({"exit", "quit", "/exit", "/quit"})
COMMAND = re.compile(r"/[a-z]+")
HELP = """\
/model NAME  go on with another model: a stage of this run, a folder, an adapter, or a hub name
/model       list this run's models
/reset       forget the conversation
/help        this list
exit         leave; ctrl-D does so too
ctrl-C       while the model writes: stop its answer; else: leave"""


def chat(
    model: str,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int | None = None,
    system_prompt: str | None = None,
    verbose: bool = False,
) -> None:
    """Talk with a model until the person leaves or the input ends.

    model: a run, a stage, a folder, an adapter, a GGUF file, or a hub name. Where the input is not a terminal, each
    line is a message, only answers go to stdout, and everything else goes to stderr. Raises UserError when the
    model cannot be opened, and from a pipe also for a message that cannot be answered.
    """
    options = Options(max_new_tokens, temperature, top_p, seed)
    console.prepare_streams()
    _prepare_input()
    sitting = Sitting(options, system_prompt, verbose)
    try:
        sitting.open(model)
        sitting.listen()
    except KeyboardInterrupt:
        if not sitting.interactive:
            raise
        sitting.tell("")
    sitting.tell("Goodbye.")


def _prepare_input() -> None:
    """Arrow keys and history where Python has readline; bytes that are no text become replacement characters."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


class Sitting:
    """The open model and what was said."""

    loaded: Loaded
    run: Run | None

    def __init__(self, options: Options, system_prompt: str | None, verbose: bool) -> None:
        self.options = options
        self.system_prompt = system_prompt
        self.verbose = verbose
        self.interactive = sys.stdin.isatty()
        self.messages: list[Message] = []
        self.turns = 0

    def tell(self, text: str) -> None:
        """Say something that is not an answer."""
        if self.interactive:
            console.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def open(self, name: str, run: Run | None = None) -> None:
        """Load a model and introduce it; when this fails, the one before stays."""
        self.tell(f"Opening {name} …")
        loaded = load_for_inference(name, run)
        if self.system_prompt is not None:
            loaded = loaded.with_system_prompt(self.system_prompt)
        self.loaded, self.run = loaded, run or run_of(loaded.folder)
        self.reset()
        self.tell(about_model(loaded, self.run))
        if not loaded.has_template:
            self.tell("It has no chat template: it does not answer, it continues the text that you type.")
            if reason := why_nonsense(loaded, self.run):
                self.tell(reason)
        self.list_models()
        if self.interactive:
            what = "Type a message" if loaded.has_template else "Type the beginning of a text"
            self.tell(f"{what}. /help lists the commands, exit leaves.\n")

    def reset(self) -> None:
        self.messages, self.turns = [], 0

    def list_models(self) -> None:
        if others := other_models(self.loaded, self.run):
            width = max(map(len, others))
            lines = [f"  /model {name:<{width}}  {words}".rstrip() for name, words in others.items()]
            self.tell("\n".join(["Other models of this run:", *lines]))

    def listen(self) -> None:
        """Read lines until the end."""
        while (line := self.read_line()) is not None and line not in LEAVE:
            try:
                if COMMAND.fullmatch(line.partition(" ")[0]):
                    self.obey(line)
                elif line:
                    self.respond(line)
            except UserError as problem:
                if not self.interactive:
                    raise
                console.error(problem)

    def read_line(self) -> str | None:
        """The next line without its blanks; None at the end of the input."""
        if self.interactive:
            try:
                return input("> ").strip()
            except EOFError:
                self.tell("")
                return None
        return line.strip() if (line := sys.stdin.readline()) else None

    def obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        if command == "/reset":
            self.reset()
            self.tell("The conversation is forgotten.")
        elif command == "/model" and argument:
            ours = argument.strip() in other_models(self.loaded, self.run)
            self.open(argument.strip(), self.run if ours else None)
        elif command == "/model":
            self.tell(about_model(self.loaded, self.run))
            self.list_models()
        else:
            self.tell(HELP if command == "/help" else f"There is no command {command}.\n{HELP}")

    def respond(self, line: str) -> None:
        """Write the answer, or the text's continuation, as it comes."""
        reply = self.answer(line) if self.loaded.has_template else self.continue_text(line)
        self.turns += 1
        print(flush=True)
        if reply.interrupted:
            if not self.interactive:
                raise KeyboardInterrupt
            self.tell("(stopped)")
        elif self.loaded.has_template and len(reply.token) == self.options.max_new_tokens:
            self.tell(
                f"(The answer ends here: it has {len(reply.token)} tokens, as --max-new-tokens allows.)"
            )
        if repeats(reply.token):
            reason = "" if self.loaded.has_template else why_nonsense(self.loaded, self.run)
            self.tell(f"(It repeats itself. {reason or 'A higher temperature helps, or other words.'})")
        if self.verbose:
            rate = len(reply.token) / max(reply.seconds, 1e-9)
            self.tell(f"({len(reply.token)} tokens in {reply.seconds:.1f} s, {rate:.1f} tokens/s)")

    def answer(self, line: str) -> Reply:
        kept, prompt = fit(self.loaded, [*self.messages, Message("user", line)], self.options.max_new_tokens)
        if dropped := (len(self.messages) + 1 - len(kept)) // 2:
            turns = "turn is" if dropped == 1 else f"{dropped} turns are"
            self.tell(
                f"(The conversation is longer than this model's context of {self.loaded.context_tokens:,} tokens: "
                f"the oldest {turns} forgotten.)"
            )
        reply = stream_reply(self.loaded, prompt, self.options, _write, self.turns)
        # Special tokens that were spelled out letter by letter would be refused in every later prompt. A question
        # without any answer is forgotten: two of a person's turns in a row are no conversation.
        said = special_tokens(self.loaded.tokenizer).sub("", reply.text)
        self.messages = [*kept, Message("assistant", said)] if said else kept[:-1]
        return reply

    def continue_text(self, line: str) -> Reply:
        prompt = fit_text(self.loaded, line)
        _write(line)
        return stream_reply(self.loaded, prompt, self.options, _write, self.turns)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
