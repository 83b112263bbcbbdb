"""Memory and threads refused, and threads with little stack."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which only Linux enforces")

# limit(MiB) allows so much beyond what is used; allowed() lifts it.
LIMITED = """
import contextlib, resource, sys
import numpy as np
import crossentropy as ce

@contextlib.contextmanager
def limit(mebibytes):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(mebibytes * 2**20), resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

rng = np.random.default_rng(0)
"""
PROBLEMS = {
    "many strided classes": "rng.standard_normal((32_000, 64)), rng.integers(0, 32_000, 64), 0",
    "a few long rows": "rng.standard_normal((3, 6_000_000), np.float32), rng.integers(0, 6_000_000, 3), 1",
    "probabilities": "rng.standard_normal((4000, 700), np.float32), rng.random((4000, 700), np.float32), 1",
    "few classes": "rng.standard_normal((200_000, 10), np.float32), rng.integers(0, 10, 200_000), 1",
}


LARGE = ("many strided classes", "a few long rows")  # the others get by with what the process has


@pytest.mark.parametrize("name", PROBLEMS)
def test_memory_is_refused(alone, name):
    """MemoryError with nothing written, or the right result; from no memory at all to enough of it."""
    script = f"""
z, t, axis = {PROBLEMS[name]}
expected = ce.cross_entropy_with_grad(z, t, axis=axis, num_threads=2)
out = np.full_like(z, 7)
refused = returned = 0
for mebibytes in (0, 0.1, 0.3, 1, 2, 4, 8, 12, 16, 20, 24, 32, 50, 100):
    out[...] = 7
    with limit(mebibytes):
        try:
            loss = ce.cross_entropy_with_grad(z, t, axis=axis, num_threads=2, out=out)[0]
        except MemoryError:
            loss = None
    if loss is None:
        refused += 1
        assert (out == 7).all(), "written before memory was refused"
    else:
        returned += 1
        assert loss == expected[0] and (out == expected[1]).all()
print(refused, returned)
"""
    # malloc gives back what is freed, and does not reserve 64 MiB for a thread that has ended.
    frugal = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    refused, returned = map(int, alone(LIMITED + script, **frugal).split())
    assert returned >= 1
    assert refused >= (1 if name in LARGE else 0), returned


def test_scratch_of_strided_classes_does_not_grow_with_them(alone):
    """400 000 classes, 102 MB: two threads get by with two MiB beside their stacks."""
    script = """
z, t = rng.standard_normal((400_000, 64), np.float32), rng.integers(0, 400_000, 64)
out = np.empty_like(z)
with limit(2 + 8 + 1):
    loss = ce.cross_entropy_with_grad(z, t, axis=0, num_threads=2, out=out)[0]
exponentials = np.exp(z.astype(np.float64))
totals = exponentials.sum(0)
np.testing.assert_allclose(loss, np.mean(np.log(totals) - z[t, range(64)]), rtol=1e-6)
gradient = exponentials / totals
gradient[t, range(64)] -= 1
np.testing.assert_allclose(out, gradient / 64, rtol=1e-5, atol=1e-9)
"""
    alone(LIMITED + script)


def test_threads_are_refused(alone):
    """The others do their work; the result is the same."""
    script = """
z, t = rng.standard_normal((4000, 1000)), rng.integers(0, 1000, 4000)
expected = ce.cross_entropy_with_grad(z, t, num_threads=1)
out = np.empty_like(z)
with limit(1):  # a thread's stack alone is more
    loss, dlogits = ce.cross_entropy_with_grad(z, t, num_threads=64, out=out)
assert loss == expected[0] and (out == expected[1]).all()
"""
    alone(LIMITED + script)


@pytest.mark.parametrize("kibibytes", [128, 96])
def test_threads_with_little_stack(alone, kibibytes):
    """As much as musl gives by default, and less: Python itself takes most of it."""
    script = f"""
import threading
def losses():
    found = []
    for classes in (2, 10, 192, 193, 5000):
        for dtype in ("f2", "f4", "f8"):
            z = rng.standard_normal((40, classes)).astype(dtype)
            t, q = rng.integers(0, classes, 40), rng.random((40, classes))
            for targets in (t, q):
                for options in ({{}}, {{"softcap": 5.0, "z_loss": 0.1}}, {{"label_smoothing": 0.1}}):
                    found.append(ce.cross_entropy_with_grad(z, targets, **options)[0])
                    found.append(ce.cross_entropy_with_grad(z.T.copy(), targets.T.copy(), axis=0, **options)[0])
                found.append(ce.cross_entropy_hessian_diagonal(z, targets)[0])
            found.append(float(ce.logsumexp(z).sum()) + float(ce.log_softmax(z.T.copy(), axis=0).sum()))
    return found
expected = losses()
rng = np.random.default_rng(0)
threading.stack_size({kibibytes} * 1024)
found = []
thread = threading.Thread(target=lambda: found.extend(losses()))
thread.start()
thread.join()
assert found == expected and len(found) == 5 * 3 * 15, (len(found), len(expected))
"""
    alone(LIMITED + script)
