"""Memory of large results, which later ones take over."""

import gc
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from kept_memory import (
    BLOCK,
    address,
    gradient,
    is_supported,
    kept,
    live,
    logits,
    mapping,
    page_out,
    run,
)

import crossentropy as ce
from crossentropy import _core

handler_name = np._core.multiarray.get_handler_name if hasattr(np, "_core") else np.core.multiarray.get_handler_name
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the system as Linux answers")
BYTES = np.dtype(np.uint8)


@pytest.fixture(autouse=True)
def _nothing_kept():
    gc.collect()
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)
    yield
    ce.set_kept_memory(0)
    ce.set_kept_memory(None)


@pytest.fixture
def keeps():
    if not is_supported():
        pytest.skip("this system lets nothing be kept: memory is limited, or not marked as free")


@pytest.fixture
def huge_pages():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no huge pages")


def of_core(array):
    return handler_name(array) == "crossentropy"


class TestReuse:
    @pytest.mark.usefixtures("keeps")
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
    def test_a_result_takes_over_the_memory_of_one_that_died(self, dtype):
        z = logits(shape=(5, 1 << 22)).astype(dtype)
        first = gradient(z)
        expected, place = first.copy(), address(first)
        assert place % (1 << 21) == 0
        del first
        assert kept() >= z.nbytes
        z *= 1  # other memory is used meanwhile
        again = gradient(z)
        assert address(again) == place
        assert again.tobytes() == expected.tobytes()

    @pytest.mark.usefixtures("keeps")
    @pytest.mark.parametrize(
        "result",
        [
            lambda z: ce.softmax(z),
            lambda z: ce.softmax(z.T, axis=0),
            lambda z: ce.log_softmax(np.asfortranarray(z)),
            lambda z: ce.entropy_with_grad(z)[1],
            lambda z: ce.kl_divergence_with_grad(z, z)[1].logits,
            lambda z: ce.binary_cross_entropy_with_grad(z, z > 0)[1],
            lambda z: ce.cross_entropy_hessian_diagonal(z, np.arange(len(z)))[2],
            lambda z: ce.log_prob_with_grad(z, np.arange(len(z)))[1],
            lambda z: ce.linear_cross_entropy_with_grad(z[:, :9], np.ones((1 << 20, 9), "f4"), [0] * 9)[1].classifier,
        ],
        ids=["softmax", "moved", "log_softmax", "entropy", "divergence", "binary", "diagonal", "log_prob", "head"],
    )
    def test_every_function_does(self, result):
        """Its results live in such memory, and are what they are elsewhere."""
        z = logits()
        array = result(z)
        assert of_core(array if array.base is None else array.base)
        expected = array.copy()
        del array
        gc.collect()
        before = kept()
        assert before >= BLOCK
        array = result(z)
        assert live() + kept() <= before
        assert array.tobytes() == expected.tobytes()
        ce.set_kept_memory(0)
        assert result(z).tobytes() == expected.tobytes()

    def test_live_results_never_share(self):
        z, arrays = logits(), []
        for _ in range(4):
            arrays.append(gradient(z))
            if len(arrays) == 3:
                arrays.pop(0)
            assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)

    def test_views_outlive_the_owner(self):
        z = logits()
        owner = gradient(z)
        view, expected = owner[3, ::2], owner[3, ::2].copy()
        del owner
        others = [gradient(-z) for _ in range(3)]
        assert np.array_equal(view, expected)
        assert not any(np.shares_memory(view, other) for other in others)

    @pytest.mark.usefixtures("keeps")
    def test_the_best_fitting_block(self):
        blocks = {size: _core.empty((size << 20,), BYTES) for size in (100, 40, 60)}
        for block in blocks.values():
            block.fill(1)
        places = {size: address(block) for size, block in blocks.items()}
        del block
        blocks.clear()
        first, second, third = (_core.empty((size << 20,), BYTES) for size in (50, 33, 39))
        assert [address(a) for a in (first, second, third)] == [places[60], places[40], places[100]]

    def test_threads(self):
        """Results of several threads at once are right: none is handed out twice."""
        wrong = []

        def work(seed):
            z = logits(seed)
            expected = gradient(z, np.empty_like(z)).tobytes()
            for _ in range(6):
                held = [gradient(z) for _ in range(2)]
                wrong.extend(seed for array in held if array.tobytes() != expected)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_small_results_are_numpys(self):
        assert handler_name(gradient(logits(shape=(7, 1 << 20)))) == "default_allocator"
        assert of_core(gradient(logits(shape=(8, 1 << 20))))


class TestBounds:
    def test_never_more_than_was_live_at_once(self):
        """Two results a step of random sizes, in a process that has had no others."""
        script = """
import random, numpy as np
from crossentropy import _core
from kept_memory import kept, live
random.seed(1)
def rounded(bytes): return -(-bytes // 2**21) * 2**21
held, most, reused, dtype = [], 0, 0, np.dtype(np.uint8)
try:
    _core.empty((1 << 46,), dtype)  # what is refused has not been live
except MemoryError:
    pass
for step in range(400):
    size = random.randrange(2**25, 2**28)
    before = kept()
    array = _core.empty((size,), dtype)
    array[:: 2**20] = step % 256
    reused += kept() < before and live() + kept() <= most
    held.append(array)
    most = max(most, sum(rounded(a.nbytes) for a in held))
    assert live() + kept() <= most, step
    assert all((a[:: 2**20] == (step - i) % 256).all() for i, a in enumerate(reversed(held)))
    if len(held) == 2:
        del array, held[0]
print(reused)
"""
        reused = int(run(script))
        assert reused > 300 or not is_supported()

    @linux
    @pytest.mark.usefixtures("keeps")
    @pytest.mark.parametrize("sizes", [(9,), (9, 30), (30, 9, 16)], ids=str)
    def test_several_results_a_step_take_no_fresh_memory(self, sizes):
        """From the third step on, each held until the next of its kind is there."""
        script = f"""
import resource
from kept_memory import *
given = [logits(shape=(rows, 1 << 20)) for rows in {sizes}]
expected = [gradient(z, np.empty_like(z)) for z in given]
held, faults = [None] * len(given), []
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i, z in enumerate(given):
        held[i] = gradient(z)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert all(map(np.array_equal, held, expected))
print(max(faults[2:]))
"""
        assert int(run(script)) < 12  # 16 huge pages are the smallest result's

    @pytest.mark.usefixtures("keeps")
    def test_limit(self):
        a, b = gradient(logits()), gradient(logits(shape=(10, 1 << 20)))
        ce.set_kept_memory(BLOCK + 1)
        del a, b
        assert kept() == BLOCK  # the other is larger than the limit
        ce.set_kept_memory(BLOCK - 1)
        assert kept() == 0

    def test_off(self):
        array = gradient(logits())
        ce.set_kept_memory(0)
        assert handler_name(gradient(logits())) == "default_allocator"
        del array
        assert (live(), kept()) == (0, 0)
        script = "from kept_memory import *; gradient(logits()); print(kept(), live())"
        assert run(script, CROSSENTROPY_KEPT_MEMORY="0") == "0 0\n"

    @pytest.mark.usefixtures("keeps")
    def test_memory_error_after_all_has_been_given_back(self):
        gradient(logits())
        assert kept() > 0
        with pytest.raises(MemoryError):
            _core.empty((1 << 46,), BYTES)
        assert kept() == 0

    @linux
    @pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
    @pytest.mark.parametrize("before", [False, True])
    def test_limits_of_the_process(self, name, before):
        limit = f"resource.setrlimit(resource.{name}, (1 << 36, -1))"
        script = f"""
import resource
{limit if before else ""}
from kept_memory import *
z = logits()
expected = gradient(z, np.empty_like(z)).tobytes()
arrays = [gradient(z) for _ in range(2)]
del arrays
was = kept()
{limit}
for _ in range(2):
    array = gradient(z)
    assert (array.tobytes(), kept()) == (expected, 0)
    del array
    assert kept() == 0
print(was)
"""
        was = int(run(script))
        assert was == 0 if before else was == 2 * BLOCK or not is_supported()

    @linux
    def test_a_limit_that_binds(self):
        """What was kept does not stand in the way of what fits."""
        script = """
from kept_memory import *
import resource
held = [np.empty_like(logits()) for _ in range(2)]
arrays = [gradient(logits()) for _ in range(8)]
del arrays
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * 4096 - kept()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 3 * BLOCK, -1))
gradient(held[0], held[1])
assert address(gradient(held[0])) % 2**21 == 0
try:
    ce._core.empty((4 * BLOCK,), np.dtype(np.uint8))
except MemoryError:
    print("refused")
"""
        assert run(script) == "refused\n"


class TestNumPy:
    def test_results_own_their_memory(self):
        array = gradient(logits())
        assert array.flags.owndata
        assert array.base is None
        first, last = array[0, 0], array[-1, -1]
        for shape in ((10, 1 << 20), (9, 1 << 20), (1, 3), (20, 1 << 20)):
            array.resize(shape, refcheck=False)
            assert array.shape == shape
            assert array[0, 0] == first
            if len(array) == 10:
                assert array.reshape(-1)[9 * (1 << 20) - 1] == last
                assert not array[9].any()
        array.fill(1.0)
        assert array.sum(dtype="f8") == array.size

    def test_tracemalloc_sees_them(self):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            array = ce.softmax(logits())
            with_array = tracemalloc.get_traced_memory()[0]
            del array
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert BLOCK <= with_array - before < BLOCK + 100_000
        assert abs(after - before) < 100_000

    def test_the_allocator_is_restored(self):
        before = handler_name()
        for arguments in (((BLOCK,), "no dtype"), ((-1,), BYTES), ((1 << 46,), BYTES)):
            with pytest.raises((MemoryError, TypeError, ValueError)):
                _core.empty(*arguments)
            assert handler_name() == before
        assert of_core(gradient(logits()))
        assert handler_name() == before
        with pytest.raises(IndexError):
            ce.cross_entropy_with_grad(logits(), [1 << 20] * 9)
        assert handler_name() == before

    def test_globals_and_cycles_at_the_end(self):
        script = """
from kept_memory import *
class Node: pass
everywhere = gradient(logits())
a, b = Node(), Node()
a.other, b.other, a.array, b.array = b, a, gradient(logits()), gradient(logits())
gradient(logits())
sys.kept_to_the_end = ce.softmax(logits())
"""
        assert run(script) == ""

    def test_copies(self):
        import copy
        import pickle

        array = gradient(logits())
        for other in (copy.deepcopy(array), pickle.loads(pickle.dumps(array, 5))):
            assert np.array_equal(other, array)
            assert not np.shares_memory(other, array)


@linux
@pytest.mark.usefixtures("keeps")
class TestSystem:
    def test_marked_free_when_its_array_dies(self):
        array = gradient(logits())
        place = address(array)
        before = mapping(place)
        assert before["LazyFree"] < BLOCK >> 10
        assert "dc" not in before["VmFlags"]
        del array
        after = mapping(place)
        assert after["LazyFree"] >= BLOCK >> 10
        assert "dc" in after["VmFlags"]  # no child of a fork gets it
        array = gradient(logits())
        assert address(array) == place
        assert "dc" not in mapping(place)["VmFlags"]

    @pytest.mark.usefixtures("huge_pages")
    @pytest.mark.parametrize("part", [1 << 20, 2 << 20])
    def test_after_the_system_has_taken_pages(self, part):
        """Half of each huge page, or all: what is lost of one would come back small."""
        z = logits()
        array = gradient(z)
        expected, place = array.copy(), address(array)
        assert mapping(place)["AnonHugePages"] >= BLOCK >> 10
        del array
        if not all(page_out(begin, part) for begin in range(place, place + BLOCK, 2 << 20)):
            pytest.skip("this system takes no pages when asked to")
        array = gradient(z)
        assert array.tobytes() == expected.tobytes()
        assert mapping(address(array))["AnonHugePages"] >= BLOCK >> 10

    def test_without_huge_pages(self):
        script = """
from kept_memory import *
assert LIBC.prctl(41, 1, 0, 0, 0) == 0  # PR_SET_THP_DISABLE
z = logits()
array = gradient(z)
expected, place = array.tobytes(), address(array)
assert mapping(place)["AnonHugePages"] == 0
del array
array = gradient(z)
assert (address(array), array.tobytes()) == (place, expected)
del array
assert page_out(place)
assert gradient(z).tobytes() == expected
"""
        run(script)


FORK = """
import os, warnings
from kept_memory import *
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: BLAS has threads
def in_child(check):
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
z = logits()
"""


@linux
class TestFork:
    def test_kept(self):
        script = """
array = gradient(z)
expected, place = array.tobytes(), address(array)
del array
def check():
    assert (live(), kept()) == (0, 0)
    assert mapping(place) == {}
    for _ in range(2):
        assert gradient(z).tobytes() == expected
in_child(check)
was = kept()
array = gradient(z)
assert not was or address(array) == place
assert array.tobytes() == expected
"""
        run(FORK + script)

    def test_live(self):
        script = """
array = gradient(z)
expected = array.tobytes()
def check():
    global array
    assert array.tobytes() == expected
    gradient(-z)
    array[0] = 7
    del array
    assert live() == 0
    assert kept() <= BLOCK  # of the result that the child has made
in_child(check)
assert array.tobytes() == expected
del array
assert (live(), kept()) == (0, 0)  # a child might have shared it still
gradient(z)
assert kept() in (0, BLOCK)
"""
        run(FORK + script)

    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_queue(self, start, tmp_path):
        script = tmp_path / "queues.py"
        script.write_text("""
import multiprocessing, sys, warnings
from kept_memory import *
warnings.simplefilter("ignore", DeprecationWarning)
def work(given, found):
    for _ in range(2):
        found.put(gradient(given.get(timeout=120)))
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    held, z = gradient(logits()), logits()
    given, found = context.Queue(), context.Queue()
    worker = context.Process(target=work, args=(given, found))
    worker.start()
    for _ in range(2):
        given.put(z)
        assert found.get(timeout=120).tobytes() == held.tobytes()
    worker.join()
    assert worker.exitcode == 0
""")
        run(
            f"import runpy, sys; sys.argv = [{str(script)!r}, {start!r}]; runpy.run_path(sys.argv[0], None, '__main__')"
        )
