import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for jax_oracle.py


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def composed(monkeypatch):
    """The path of other devices, on the CPU."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays))
    jax.clear_caches()
    yield
    jax.clear_caches()
