"""What the process does meanwhile: it ends, it forks, it rounds otherwise."""

import os
import platform

import pytest

# Of fesetround: upward, downward, towards zero.
MODES = {
    "x86_64": (0x800, 0x400, 0xC00),
    "aarch64": (0x400000, 0x800000, 0xC00000),
    "arm64": (0x400000, 0x800000, 0xC00000),
}.get(platform.machine())


@pytest.mark.parametrize("call", ["ce.cross_entropy(z, t)", "ce.softmax(z)", "ce.cross_entropy_with_grad(z, t)"])
def test_a_daemon_thread_when_the_interpreter_ends(alone, call):
    """It ends quietly with the others, whether it computes or waits to go on in Python."""
    script = f"""
import threading, time
import numpy as np
import crossentropy as ce

z, t = np.zeros((3000, 1000)), np.zeros(3000, int)
begun = threading.Event()

def calls():
    while True:
        begun.set()
        {call}

for _ in range(4):
    threading.Thread(target=calls, daemon=True).start()
begun.wait()
time.sleep(0.05)
print("end")
"""
    for _ in range(5):
        assert alone(script) == "end"


ROUNDING = """
import ctypes, ctypes.util
import numpy as np
import crossentropy as ce

rng = np.random.default_rng(0)
z, t, q = rng.standard_normal((40, 30)).astype("f4"), rng.integers(0, 30, 40), rng.random((40, 30))
w, s, v = rng.random(30), rng.random(40), rng.standard_normal((40, 30))
top = ce.TopKTargets(np.argsort(-z, -1)[:, :5].copy(), rng.random((40, 5)), renormalize=True)
H, W = rng.standard_normal((40, 8)), rng.standard_normal((30, 8))
options = {"class_weight": w, "sample_weight": s, "z_loss": 0.01, "temperature": 0.7}

def module():
    criterion = ce.CrossEntropyLoss(temperature=1.3, softcap=20.0)
    return criterion(z, t), criterion.backward(1 / 3), criterion.softmax

CALLS = {
    "loss": lambda: ce.cross_entropy_with_grad(z, t, **options),
    "capped": lambda: ce.cross_entropy_with_grad(z, q, softcap=3.0, label_smoothing=0.1, **options),
    "strided": lambda: ce.cross_entropy_with_grad(z.T.copy(), t, axis=0, temperature=3.0, reduction="sum"),
    "top k": lambda: ce.cross_entropy_with_grad(z, top),
    "softmax": lambda: (ce.softmax(z), ce.log_softmax(z), ce.logsumexp(z)),
    "diagonal": lambda: ce.cross_entropy_hessian_diagonal(z, t, **options),
    "hvp": lambda: ce.cross_entropy_hvp(z, t, v, **options),
    "dtargets": lambda: ce.cross_entropy_dtargets(z, q, temperature=0.7),
    "vjp": lambda: (ce.softmax_vjp(z, v), ce.softmax_jacobian(z)),
    "module": module,
}

def bits(call):
    found = call()
    return [np.asarray(value).tobytes() for value in (found if isinstance(found, tuple) else (found,))]
"""


@pytest.mark.skipif(MODES is None, reason="the constants of fesetround are known for x86-64 and ARM")
def test_rounding_mode_of_the_caller(alone):
    """Nothing depends on it, and the caller keeps it."""
    script = f"""
expected = {{name: bits(call) for name, call in CALLS.items()}}
libm = ctypes.CDLL(ctypes.util.find_library("m"))
for mode in {MODES}:
    for name, call in CALLS.items():
        assert libm.fesetround(mode) == 0
        found = bits(call)
        kept = libm.fegetround()
        libm.fesetround(0)
        assert kept == mode, (name, mode)
        assert found == expected[name], (name, mode)
"""
    alone(ROUNDING + script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_threads_compute(alone):
    script = """
import os, threading
import numpy as np
import crossentropy as ce

z, t = np.random.default_rng(0).standard_normal((2000, 500)), np.arange(2000) % 500
expected = ce.cross_entropy(z, t, num_threads=1)
ended = threading.Event()

def calls():
    while not ended.is_set():
        ce.cross_entropy(z, t, num_threads=2)

threads = [threading.Thread(target=calls) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if ce.cross_entropy(z, t, num_threads=2) == expected else 1)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
ended.set()
for thread in threads:
    thread.join()
assert statuses == [0] * 20, statuses
"""
    alone(script)
