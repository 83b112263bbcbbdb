import os
import sys
from pathlib import Path

import pytest
import torch

from crossentropy.torch import _eager, _operator

sys.path.insert(0, str(Path(__file__).parent))  # for torch_oracle.py


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """What is tested is compiled now, not in some earlier run."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def composed(monkeypatch):
    """The path of other devices, on the CPU."""
    monkeypatch.setattr(_eager, "under_transform", lambda: True)
    monkeypatch.setattr(_operator, "core_applies", lambda *_: False)


@pytest.fixture(params=["core", "composed"])
def path(request):
    """Both paths that an eager call may take."""
    if request.param == "composed":
        request.getfixturevalue("composed")
    return request.param
