"""Contents that are hostile rather than shapes: rows that hold no number, exporters that let go, arrays that shrink."""

import ml_dtypes
import numpy as np
import pytest

import crossentropy as ce

Z = np.array([[2.0, 1.0, 0.1]])


class TestTopK:
    @pytest.mark.parametrize("q", [[-0.5, -0.5], [-1.0, 1.0], [np.inf, 1.0], [np.nan, 1.0], [-np.inf, np.inf]])
    def test_what_is_no_probability_is_not_renormalised_into_one(self, q):
        for renormalize in (False, True):
            targets = ce.TopKTargets([[0, 1]], [q], renormalize=renormalize)
            loss, dlogits = ce.cross_entropy_with_grad(Z, targets)
            if np.isfinite(q).all() and not renormalize:  # negative ones are taken as they are
                expected = ce.reference.cross_entropy_with_grad(Z, [[*q, 0.0]])
                assert loss == pytest.approx(expected[0], rel=1e-14)
                np.testing.assert_allclose(dlogits, expected[1], atol=1e-15)
                continue
            assert np.isnan(loss)
            assert np.isnan(dlogits).all()

    @pytest.mark.parametrize("scale", [1e308, 1e-320, 1.0])
    def test_sums_beyond_float64(self, scale):
        targets = ce.TopKTargets([[0, 1]], [[scale, scale]], renormalize=True)
        expected = ce.reference.cross_entropy_with_grad(Z, [[0.5, 0.5, 0.0]])[0]
        assert ce.cross_entropy(Z, targets) == pytest.approx(expected, rel=1e-14)

    def test_a_row_without_mass_is_ignored(self):
        targets = ce.TopKTargets([[0, 1], [1, 2]], [[0.0, 0.0], [1.0, 3.0]], renormalize=True)
        expected = ce.reference.cross_entropy_with_grad(Z, [[0.0, 0.25, 0.75]])[0]
        assert ce.cross_entropy(np.repeat(Z, 2, 0), targets) == pytest.approx(expected, rel=1e-14)


class TestModules:
    @pytest.mark.parametrize(
        ("z", "options"),
        [
            (np.array([[100.0, 99.0, 0.0]], np.float16), {"temperature": 1e-3}),
            (np.array([[2.0, 1.0]], np.float32), {"temperature": 1e-40}),
            (np.array([[9.0, 8.0, 7.0]], np.float16), {"softcap": 50.0}),
            (np.array([[100.003, 100.0, 0.0]], np.float32), {"temperature": 1e-2}),
        ],
    )
    def test_softmax_of_scaled_logits(self, z, options):
        criterion = ce.CrossEntropyLoss(**options)
        criterion(z, [0])
        u, k = z.astype(np.float64), options.get("softcap")
        u = (u if k is None else k * np.tanh(u / k)) / options.get("temperature", 1.0)
        e = np.exp(u - u.max())
        assert criterion.softmax.dtype == z.dtype
        np.testing.assert_allclose(criterion.softmax, e / e.sum(), rtol=np.finfo(z.dtype).eps)


class TestNothingCounts:
    """Loss and gradient are 0, whatever the rows hold."""

    def test_head(self):
        W, b = [[1.0, 2.0], [3.0, 4.0]], [0.0, 0.0]
        weights = {"class_weight": [0.0, 1.0]}
        loss, gradients = ce.linear_cross_entropy_with_grad([[np.inf, 1.0], [1.0, 2.0]], W, [0, 0], bias=b, **weights)
        assert loss == 0
        for gradient in gradients:
            assert (gradient == 0).all()
        out = ce.LinearGradients(np.ones((2, 2)), np.ones((2, 2)), np.ones(2))
        ce.linear_cross_entropy_with_grad([[np.nan, 1.0], [1.0, 2.0]], W, [0, 0], bias=b, out=out, **weights)
        assert not any(gradient.any() for gradient in out)

    def test_eval(self, tmp_path):
        from attack.command import run

        np.save(tmp_path / "z.npy", np.array([[np.inf, 0.5]], np.float32))
        np.save(tmp_path / "t.npy", np.array([0]))
        np.save(tmp_path / "w.npy", np.zeros(2))
        files = ["z.npy", "t.npy", "--class-weight", "w.npy", "--grad", "g.npy"]
        assert run("eval", *files, cwd=tmp_path).returncode == 0
        assert not np.load(tmp_path / "g.npy").any()


class TestMemory:
    def test_an_exporter_that_keeps_nothing(self, alone):
        """Over DLPack the capsule owns the memory, not what gave it."""
        script = """
import ctypes
import numpy as np, crossentropy as ce

class Lazy:
    dtype = "bfloat16"
    def __dlpack__(self, **_):
        return relabelled(np.full((1000, 300), 0x3F80, np.uint16))  # ones
    def __dlpack_device__(self):
        return (1, 0)

def relabelled(bits):
    # The capsule of an integer array, its type written over: bfloat of 16 bits. It owns the array.
    capsule = bits.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    at = pointer(capsule, b"dltensor") + 8 + 8 + 4  # data, device, ndim
    ctypes.c_uint8.from_address(at).value = 4
    return capsule

for _ in range(6):
    loss = ce.cross_entropy(Lazy(), [0] * 1000)
    junk = [np.full((1000, 300), 0x7FC0, np.uint16) for _ in range(3)]
    assert abs(loss - np.log(300)) < 1e-5, loss
"""
        alone(script)

    @pytest.mark.parametrize("argument", ["targets", "sample_weight", "class_weight", "out"])
    def test_an_array_that_shrinks_during_the_call(self, alone, argument):
        script = f"""
import numpy as np, crossentropy as ce

class Hostile:
    def __init__(self, victim, value):
        self.victim, self.value = victim, value
    def __array__(self, dtype=None, copy=None):
        self.victim.resize((1, 2), refcheck=False)
        return self.value

z, out = np.zeros((4000, 5000)), np.zeros((4000, 5000))
arguments = {{"targets": np.zeros(4000, int)}}
if {argument!r} == "out":
    arguments |= {{"out": out, "class_weight": Hostile(out, np.ones(5000))}}
else:
    value = {{"targets": np.zeros(4000, int), "sample_weight": np.ones(4000), "class_weight": np.ones(5000)}}
    arguments[{argument!r}] = Hostile(z, value[{argument!r}])
try:
    ce.cross_entropy_with_grad(z, **arguments)
except ValueError as error:
    print(error)
"""
        assert "expected" in alone(script)

    def test_the_head_writes_nothing_before_its_logits_have_memory(self, alone):
        script = """
import resource
import numpy as np, crossentropy as ce

rng = np.random.default_rng(0)
h, w = rng.standard_normal((1200, 512), np.float32), rng.standard_normal((20_000, 512), np.float32) * 0.05
t = rng.integers(0, 20_000, 1200)
t[5] = -100
ce.linear_cross_entropy_with_grad(h[:8], w, t[:8])
out = ce.LinearGradients(np.full_like(h, 7), np.full_like(w, 7))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), -1))
try:
    ce.linear_cross_entropy_with_grad(h, w, t, out=out)
except MemoryError:
    print((out.hidden == 7).all() and (out.classifier == 7).all())
"""
        assert alone(script, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1") == "True"


class TestOddities:
    def test_heads_of_width_0_and_no_rows(self):
        loss, gradients = ce.linear_cross_entropy_with_grad(np.zeros((3, 0)), np.zeros((5, 0)), [0, 1, 2])
        assert loss == pytest.approx(np.log(5), rel=1e-15)
        assert [gradients.hidden.shape, gradients.classifier.shape] == [(3, 0), (5, 0)]
        loss, gradients = ce.linear_cross_entropy_with_grad(np.zeros((0, 3)), np.zeros((5, 3)), np.zeros(0, int))
        assert loss == 0
        assert not gradients.classifier.any()

    def test_mapped_bfloat16(self, tmp_path):
        z = np.memmap(tmp_path / "m", ml_dtypes.bfloat16, "w+", shape=(2, 3))
        z[...] = Z
        expected = ce.reference.cross_entropy_with_grad(z.astype(np.float64), [0, 1])[0]
        assert ce.cross_entropy(z, [0, 1]) == pytest.approx(expected, rel=1e-6)

    def test_floating_point_errors_of_the_caller(self):
        with np.errstate(all="raise"):
            criterion = ce.CrossEntropyLoss()
            criterion(np.array([[1e-300, 700.0]]), [1])
            criterion.backward(1e-300)
            ce.softmax_jacobian([-700.0, 0.0, 700.0])
            ce.cross_entropy_hvp([[-700.0, 700.0]], [0], [[1e-300, 1.0]])
            ce.linear_cross_entropy_with_grad([[1e-200, 1.0]], [[1e-200, 0.0], [0.0, 700.0]], [1])

    @pytest.mark.parametrize("form", [["--pitfalls"], ["--tex", "--pitfalls"], ["--json", "--pitfalls"]])
    def test_nothing_to_explain(self, tmp_path, form):
        from attack.command import run

        done = run("explain", "--logits", "1 2 3", "--targets", "0", "--ignore-index", "0", *form, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("columns", ["1", "2", "5"])
    def test_narrow_terminals(self, tmp_path, columns, monkeypatch):
        from attack.command import run

        monkeypatch.setenv("COLUMNS", columns)
        done = run("explain", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
