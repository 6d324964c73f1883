"""Between the shell and the verbs: help under headings, exit codes, and what is said when something fails."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

from groundup import console
from groundup.errors import UserError

SECTIONS = {
    "Start here": ("run", "recipes", "init", "fetch", "doctor", "plan"),
    "One stage, without a recipe": ("pretrain", "sft", "reward", "dpo", "grpo", "ppo", "merge", "eval"),
    "Look and use": ("data", "compare", "report", "chat"),
}
STORAGE_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, getattr(errno, "EDQUOT", errno.ENOSPC))


class Verbs(click.Group):
    """Help under headings, and the nearest verb for a mistyped one."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs in the order in which a newcomer meets them."""
        width = max(len(name) for name in self.commands)
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(name.ljust(width), self.commands[name].get_short_help_str(70)) for name in names]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise click.UsageError(f"There is no verb `{args[0]}`.{hint}", ctx)
        return super().resolve_command(ctx, args)


def run(verbs: click.Group, argv: Sequence[str] | None = None) -> int:
    """Run a verb. Returns the exit code: 0 done, 1 a bug or a bad verdict, 2 something to put right, 130 stopped."""
    console.prepare_streams()
    if "," in os.environ.get("HF_ENDPOINT", ""):
        from groundup.hub.endpoints import split_list_for_libraries

        split_list_for_libraries()  # before any library reads it
    # Libraries' own bars would tear ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        # click itself ends quietly when whoever read the output has gone (`| head`).
        return (
            verbs.main(None if argv is None else list(argv), prog_name="groundup", standalone_mode=False) or 0
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    if os.environ.get("GROUNDUP_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        error = UserError(
            f"{error.filename or 'A file'} cannot be read or written.",
            why=error.strerror or "",
            fix="Free some space or change the permissions, or choose another folder with --out.",
        )
    if isinstance(error, UserError):
        console.error(error)
        return 2
    log = console.failure_log()
    more = f"The traceback is in {log}." if log else "GROUNDUP_TRACEBACK=1 shows the traceback."
    console.error(
        UserError(
            f"{type(error).__name__}: {error}",
            why="This is a bug in Groundup, or in a library that it uses; you did nothing wrong.",
            fix=f"{more} Please report it.",
        )
    )
    return 1
