"""A shorter name for the hub on loopback."""

import pytest


@pytest.fixture
def hub(loopback_hub):
    return loopback_hub
