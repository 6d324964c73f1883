"""What all tests share: no network, one thread, and where real data lies."""

import os
from pathlib import Path

import pytest

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
