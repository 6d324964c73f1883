"""A hub that stalls, cuts, lies and refuses for a while, and comes back."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.hub import listing, resolve_model, retry

WEIGHTS = bytes(range(256)) * 2000
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{ }"}
FILE = "resolve/.*/model.safetensors"


@pytest.fixture
def model(hub):
    hub.add_model("org/tiny", MODEL)
    return hub


def environment():
    """Of a process of its own, with this very package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def fetched_whole():
    folder = resolve_model("org/tiny").path
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == MODEL


def test_a_cut_connection_goes_on_where_it_was(model, capsys):
    model.fail(FILE, cut_bytes=100_000)
    model.fail(FILE, cut_bytes=50_000)
    fetched_whole()
    ranges = [
        request.headers.get("Range") for request in model.requests if "model.safetensors" in request.path
    ]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    told = capsys.readouterr().err
    assert "going on one file at a time" in told
    assert "trying again in 0.02 s (2 of 5)" in told


def test_a_line_that_breaks_often_but_brings_something_is_not_given_up(model):
    model.fail(FILE, cut_bytes=30_000, times=12)
    fetched_whole()


def test_a_line_that_brings_next_to_nothing_is(model):
    model.fail(FILE, cut_bytes=10, times=99)
    with pytest.raises(UserError, match="could not be downloaded"):
        resolve_model("org/tiny")
    assert model.fetched.count("model.safetensors") == retry.PATIENCE.attempts


@pytest.mark.parametrize(
    "fault",
    [
        {"stall_seconds": 5},
        {"cut_bytes": 1000, "stall_seconds": 5},
        {"cut_bytes": 0},
        {"length": len(WEIGHTS) + 10},
        {"length": len(WEIGHTS) - 10},
        {"status": 500},
        {"status": 503},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"wrong": True},
        {"body": b"<html>Please log in to this network</html>"},
        {"body": WEIGHTS + b"more"},
    ],
    ids=str,
)
def test_faults_of_a_file(model, fault):
    model.fail(FILE, **fault)
    fetched_whole()


@pytest.mark.parametrize(
    "fault",
    [{"stall_seconds": 5}, {"status": 502}, {"status": 429}, {"cut_bytes": 5}, {"length": 5000}],
    ids=str,
)
def test_faults_of_the_listing(model, online, fault):
    online.setattr(retry, "PATIENCE", retry.Patience(0.4, 0.4, first_wait_seconds=0.02))
    model.fail("/api/", **fault)
    fetched_whole()


def test_a_range_that_is_ignored_is_no_harm(model):
    model.fail(FILE, cut_bytes=100_000)
    model.ignores_ranges = True
    fetched_whole()


def test_retry_after_is_waited_for(model, capsys):
    model.fail(FILE, status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    fetched_whole()
    assert time.monotonic() - started >= 1
    assert "too many requests; trying again in 1 s" in capsys.readouterr().err


def test_a_hub_that_asks_for_too_long_is_given_up_at_once(model):
    model.fail("/api/", status=429, headers={"Retry-After": "3600"}, times=99)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "429" in caught.value.why
    assert "3600 s" in caught.value.fix
    assert len(model.asked) == 1


def test_after_a_failure_files_come_one_at_a_time(model):
    many = {f"model-{number}.safetensors": bytes([number]) * 1000 for number in range(30)}
    model.add_model("org/many", MODEL | many)
    model.fail("resolve/.*/model-", status=429, times=8)
    folder = resolve_model("org/many").path
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == MODEL | many


def test_it_ends_at_last_and_goes_on_next_time(model):
    model.fail(FILE, cut_bytes=100_000)
    model.fail(FILE, status=500, times=99)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "model.safetensors of org/tiny could not be downloaded" in caught.value.what
    assert "500" in caught.value.why
    assert "goes on where it stopped" in caught.value.fix
    assert model.fetched.count("model.safetensors") <= 7
    model.faults.clear()
    model.requests.clear()
    listing.forget()
    fetched_whole()
    assert model.requests[-1].headers["Range"] == "bytes=100000-"


def test_bytes_that_stay_wrong_are_never_used(model):
    model.fail(FILE, wrong=True, times=99)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        resolve_model("org/tiny")
    assert "checksum" in caught.value.why
    model.faults.clear()
    fetched_whole()


def test_a_hub_that_was_down_comes_back(model):
    model.fail("", status=503, times=2)
    fetched_whole()


def test_a_failing_hub_is_given_up_soon(model):
    model.fail("", status=503, times=99)
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "503" in caught.value.why
    assert len(model.asked) == retry.PATIENCE.questions


def test_connection_refused_fails_soon(online):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        resolve_model("org/tiny")
    assert "127.0.0.1:9 cannot be reached" in caught.value.what
    assert "HF_ENDPOINT" in caught.value.fix
    assert time.monotonic() - started < 5


def test_stopping_keeps_what_came(model, online):
    from groundup.hub import blobs

    real = blobs._stream
    model.fail(FILE, cut_bytes=100_000, stall_seconds=0.2)

    def interrupted(*arguments):
        try:
            return real(*arguments)
        except Exception as error:
            raise KeyboardInterrupt from error

    online.setattr(blobs, "_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve_model("org/tiny")
    online.setattr(blobs, "_stream", real)
    fetched_whole()
    assert model.requests[-1].headers["Range"] == "bytes=100000-"


def test_two_processes_download_a_file_once(model, online):
    online.setattr(retry, "PATIENCE", retry.Patience(5, 5, 10, first_wait_seconds=0.02))
    model.fail(FILE, cut_bytes=100_000, stall_seconds=0.25, length=len(WEIGHTS))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(resolve_model("org/tiny").path)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    fetched_whole()
    assert model.fetched.count("model.safetensors") == 2  # the cut one, and its rest


def test_three_processes_fill_and_mend_one_cache(model, tmp_path):
    """Each ends with the whole model, whatever the others do, and each file comes once."""
    code = "from groundup.hub import resolve_model; print(resolve_model('org/tiny').path)"
    for number in range(2):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        folders = {process.communicate()[0].strip().splitlines()[-1] for process in started}
        assert [process.returncode for process in started] == [0, 0, 0]
        (folder,) = map(Path, folders)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == MODEL
        assert model.fetched.count("model.safetensors") == number + 1
        blob = (folder / "model.safetensors").resolve()
        blob.write_bytes(b"x" * len(WEIGHTS))


def test_a_lock_that_somebody_holds_and_does_nothing(model, tmp_path):
    from filelock import FileLock
    from loopback import checksum

    lock = tmp_path / "hub-cache/.locks/models--org--tiny" / f"{checksum('model.safetensors', WEIGHTS)}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(UserError, match="locked by another process") as caught:
        resolve_model("org/tiny")
    assert caught.value.where == str(lock)
    fetched_whole()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";r=12;t=55'}, None),
        ({}, None),
    ],
)
def test_how_long_a_hub_asks_to_wait(headers, seconds):
    class Busy(Exception):
        class response:
            status_code = 429

    Busy.response.headers = headers
    assert retry.asked_wait(Busy()) == seconds
