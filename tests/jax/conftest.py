import sys
from pathlib import Path

import jax
import pytest
from other_device import composed_on_the_cpu

sys.path.insert(0, str(Path(__file__).parent))  # for jax_oracle.py

# Before JAX starts; what does not ask for both runs on the first.
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def composed():
    """The path of other devices, on the CPU."""
    with composed_on_the_cpu():
        yield
