"""What all tests share: no network, one thread, and where real data lies."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import LoopbackHub

# Before any library reads them. Hub tests switch downloads on for a hub of their own on loopback.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def groundup_data() -> Path:
    """The folder of real data that GROUNDUP_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("GROUNDUP_DATA")
    if not folder:
        pytest.skip(
            "GROUNDUP_DATA is not set: it names a folder of real data that is not part of the project"
        )
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"GROUNDUP_DATA is {folder}, which is no folder")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where a test lies says that it compares with other libraries."""
    for item in items:
        if "parity" in item.path.parts:
            item.add_marker(pytest.mark.parity)


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Downloads are allowed, into an empty cache, from nobody; in this process and in those that it starts."""
    from huggingface_hub import constants

    from groundup.hub import listing, retry
    from groundup.hub.errors import PROXIES

    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the library read these when it was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(retry, "PATIENCE", retry.Patience(2.0, 0.4, 0.3, first_wait_seconds=0.02))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    for name in ("HF_TOKEN", "HF_DATASETS_CACHE", "GROUNDUP_ENDPOINTS", "NO_PROXY", "no_proxy", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("GROUNDUP_MIRRORS", "none")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    listing.forget()
    return monkeypatch


@pytest.fixture
def loopback_hub(online: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub of our own on loopback, which is the endpoint; see `LoopbackHub` for what it can do wrong."""
    with LoopbackHub() as hub:
        online.setenv("HF_ENDPOINT", hub.url)
        yield hub
