import io
import logging
import os
import subprocess
import sys
import textwrap
import warnings

import pytest

from groundup import console
from groundup.errors import UserError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    def watch():
        """To be called in the test itself: pytest puts its own streams in place after fixtures ran."""
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stdout, sys.stderr

    return watch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told to."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_say_in_a_pipe_is_the_plain_text(capsys):
    console.say("[bold]not markup[/bold] :smile: [/]")
    assert capsys.readouterr().out == "[bold]not markup[/bold] :smile: [/]\n"


def test_warnings_go_to_stderr_plain_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console.warn("little [memory]")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Warning: little [memory]\n")


def test_warnings_are_yellow_on_a_terminal_unless_no_color(terminal, monkeypatch):
    _, err = terminal()
    console.warn("careful [red]")
    assert err.getvalue() == "\x1b[33mWarning: careful [red]\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.warn("again")
    assert err.getvalue().endswith("\nWarning: again\n")


def test_force_color_colors_a_pipe_but_no_bar_moves_in_it(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console.warn("x")
    with console.progress("Training", total=1) as bar:
        bar.advance()
    captured = capsys.readouterr()
    assert "\x1b[33m" in captured.err
    assert "\x1b" not in captured.out


def test_progress_in_a_pipe_first_last_and_one_line_each_five_seconds(capsys, clock):
    with console.progress("Training", total=600) as bar:
        for step in range(600):
            clock[0] += 0.5
            bar.advance(loss=3.0 - step / 300)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Training  0/600 steps"
    assert lines[1] == "Training  10/600 steps · 2 steps/s · 5 min left · loss 2.97"
    assert lines[-1] == "Training  600/600 steps · 2 steps/s · took 5 min · loss 1.003"
    assert len(lines) == 61  # the end is said once


def test_a_brief_task_is_not_told_and_a_long_one_from_its_fifth_second(capsys, clock):
    for seconds in (4, 12):
        with console.progress("Answering", total=seconds, unit="answer", brief=True) as bar:
            for _ in range(seconds):
                clock[0] += 1
                bar.advance()
    assert capsys.readouterr().out.splitlines() == [
        "Answering  5/12 answers · 1 answers/s · 7 s left",
        "Answering  10/12 answers · 1 answers/s · 2 s left",
        "Answering  12/12 answers · 1 answers/s · took 12 s",
    ]


def test_parts_of_a_unit_add_up(clock):
    bar = console.Progress("Answering", 3, "answer", start=0)
    for _ in range(7):
        clock[0] += 1
        bar.advance(1 / 7)
    assert bar.facts() == "1/3 answers · 0.14 answers/s · 14 s left"


def test_the_rate_is_right_however_often_it_is_told(clock):
    bar = console.Progress("Answering", None, "token", start=0)
    for _ in range(20_000):
        clock[0] += 0.001
        bar.advance()
    assert bar.facts() == "20,000 tokens · 1,000 tokens/s"
    assert len(bar._seen) < 500


def test_a_resumed_bar_does_not_count_what_was_done_before(clock):
    bar = console.Progress("Training", 1000, "step", start=900)
    clock[0] += 10
    bar.advance(10)
    assert bar.facts() == "910/1,000 steps · 1 steps/s · 2 min left"


def test_the_rate_follows_the_last_half_minute(clock):
    bar = console.Progress("Reading", None, "row", start=0)
    for _ in range(100):
        clock[0] += 1
        bar.advance(100)
    for _ in range(40):
        clock[0] += 1
        bar.advance(1)
    assert bar.facts() == "10,040 rows · 1 rows/s"


def test_slow_work_is_told_as_time_per_unit(clock):
    bar = console.Progress("Merging", 3, "model", start=0)
    clock[0] += 120
    bar.advance()
    assert bar.facts() == "1/3 models · 2 min per model · 4 min left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than 1 s"), (45, "45 s"), (200, "3 min"), (7800, "2 h 10 min"), (200_000, "2 days 7 h")],
)
def test_durations_in_words(seconds, words):
    assert console.duration(seconds) == words


def test_say_during_a_bar_prints_above_it(terminal):
    screen, _ = terminal()
    with console.progress("Training", total=3) as bar:
        bar.advance()
        console.say("a [line] in between")
        bar.advance(2, loss="0.5")
    out = screen.getvalue()
    assert "\x1b[2K" in out.split("a [line] in between")[0], "the bar's line is erased before the text"
    assert "Training" in out.split("a [line] in between")[1], "and drawn again below it"
    assert "3/3 steps" in out
    assert out.endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_narrow_terminal_cuts_the_numbers_and_not_what_is_done(terminal, monkeypatch):
    screen, _ = terminal()
    monkeypatch.setenv("COLUMNS", "90")
    with console.progress("Training ppo", total=2) as bar:
        bar.advance(2, **{f"metric {place}": float(place) for place in range(9)})
    last = screen.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "Training ppo" in last and "2/2 steps" in last and "metric 0" in last
    assert (
        "metric 8" not in last
        and "…" in last
        and "\n" not in last.rstrip("\n\r").split("\x1b[?25h")[0].rstrip()
    )


def test_bars_can_be_nested_and_only_the_outer_one_stays(terminal):
    screen, _ = terminal()
    with console.progress("Training", total=2) as outer:
        with console.progress("Evaluating", total=2, unit="row") as inner:
            inner.advance(2)
        outer.advance(2)
    last = screen.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "Training" in last
    assert "Evaluating" not in last
    assert not console._bars


def test_a_bar_ends_when_the_work_fails(terminal):
    screen, _ = terminal()
    with pytest.raises(RuntimeError), console.progress("Training", total=2):
        raise RuntimeError("x")
    assert not console._bars
    assert screen.getvalue().endswith("\x1b[?25h")


def test_log_has_everything_said_and_libraries_stay_off_the_console(tmp_path, capsys):
    log = tmp_path / "run.log"
    library = logging.getLogger("some_library")
    library.propagate = False
    noisy = logging.StreamHandler(sys.stderr)
    with console.attach_log(log):
        library.addHandler(noisy)  # as a library does that is imported while a run is on
        console.say("hello\nthere")
        console.warn("careful")
        console.error(UserError("a problem", fix="a remedy"))
        library.warning("library warning")
        logging.getLogger("some_library.part").info("library info")
        library.debug("library debug")
        logging.getLogger("groundup.engine").debug("our debug")
        warnings.showwarning("old way", UserWarning, "file.py", 1)
        with console.progress("Training", total=1) as bar:
            bar.advance()
    captured = capsys.readouterr()
    text = log.read_text(encoding="utf-8")
    for part in (
        "hello",
        "there",
        "careful",
        "a remedy",
        "library warning",
        "library info",
        "our debug",
        "old way",
        "1/1 steps",
    ):
        assert part in text
    assert "library debug" not in text
    assert "library" not in captured.err + captured.out
    assert "old way" not in captured.err
    assert all(line[:4].isdigit() for line in text.splitlines() if "hello" in line or "there" in line)
    assert library.handlers == [noisy], "everything is as before"
    assert library.propagate is False
    library.removeHandler(noisy)


def test_log_is_appended_and_keeps_the_traceback_of_a_failure(tmp_path):
    log = tmp_path / "run.log"
    with console.attach_log(log):
        console.say("first run")
    with pytest.raises(ZeroDivisionError), console.attach_log(log):
        _ = 1 / 0
    text = log.read_text(encoding="utf-8")
    assert "first run" in text
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError" in text
    assert console.failure_log() == log


def test_log_that_cannot_be_opened_is_a_user_error(tmp_path):
    with (
        pytest.raises(UserError, match="cannot be written"),
        console.attach_log(tmp_path / "missing" / "run.log"),
    ):
        pass


def test_characters_that_the_console_cannot_show_do_not_crash():
    code = "from groundup import console; console.prepare_streams(); console.say('3 min \\u00b7 \\u4f60')"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "3 min ? ?\n")
