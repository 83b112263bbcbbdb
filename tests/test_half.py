"""Half precision: widened exactly, summed in float64, rounded once."""

import ctypes
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import crossentropy as ce

DTYPES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
WIDTHS = [1, 2, 3, 10, 31, 32, 33, 192, 193, 1000, 5000]
OPTIONS = [
    {},
    {"label_smoothing": 0.1, "reduction": "sum"},
    {"temperature": 0.7, "z_loss": 0.01},
    {"softcap": 5.0, "reduction": "none"},
]


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.name)
def dtype(request):
    return request.param


def ulp(x, dtype):
    """The distance between numbers of a dtype at |x|; in float32's range below it nothing is promised."""
    info = ml_dtypes.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(x), float(info.smallest_normal))))
    return 2.0**exponent * float(info.eps)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("classes", WIDTHS)
def test_loss_and_gradient(dtype, classes, options, rng):
    for targets in (rng.integers(0, classes, 37), rng.dirichlet(np.ones(classes), 37).astype(np.float32)):
        z = (4 * rng.standard_normal((37, classes))).astype(dtype)
        weights = {"class_weight": rng.uniform(0.5, 2, classes), "sample_weight": rng.uniform(0.5, 2, 37)}
        loss, dlogits = ce.cross_entropy_with_grad(z, targets, **weights, **options)
        exact, exact_gradient = ce.reference.cross_entropy_with_grad(z, targets, **weights, **options)
        np.testing.assert_allclose(loss, exact, rtol=4 * np.finfo(np.float32).eps)
        assert np.asarray(loss).dtype == (np.float32 if options.get("reduction") == "none" else np.float64)
        assert dlogits.dtype == dtype
        # In units of the larger of its two terms, which cancel where the model is right.
        p = np.abs(ce.reference.cross_entropy_with_grad(z, np.zeros((37, classes)), **weights, **options)[1])
        scale = np.maximum(np.abs(exact_gradient), p if targets.ndim == 2 else 0)
        assert (np.abs(dlogits.astype(float) - exact_gradient) <= 0.51 * ulp(scale, dtype)).mean() > 0.999
        assert (np.abs(dlogits.astype(float) - exact_gradient) <= 1.0 * ulp(scale, dtype)).all()


@pytest.mark.parametrize("classes", [3, 300])
def test_softmax_functions(dtype, classes, rng):
    z = (4 * rng.standard_normal((40, classes))).astype(dtype)
    wide = z.astype(np.float64)
    for function in (ce.softmax, ce.log_softmax):
        got, exact = function(z), function(wide)
        assert got.dtype == dtype
        assert (np.abs(got.astype(float) - exact) <= 0.51 * ulp(exact, dtype)).all()
    got = ce.logsumexp(z)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, ce.logsumexp(wide), rtol=3e-7)


@pytest.mark.parametrize("instruction_set", ce._core.available_instruction_sets)
@pytest.mark.parametrize("classes", [1, 2, 300])
def test_every_number_is_read_right(instruction_set, classes):
    """All 65536 of them: alone in a row, log-sum-exp is the number itself."""
    script = f"""
import ml_dtypes, numpy as np, crossentropy as ce
for dtype in (np.float16, ml_dtypes.bfloat16):
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    z = np.full((every.size, {classes}), -np.inf, dtype)
    z[:, -1] = every
    np.testing.assert_array_equal(ce.logsumexp(z), every.astype(np.float32))
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"CROSSENTROPY_ISA": instruction_set})


@pytest.mark.parametrize("instruction_set", ce._core.available_instruction_sets)
@pytest.mark.parametrize("classes", [2, 300])
def test_rounded_once_to_the_nearest(instruction_set, classes):
    """Two equal logits: the gradient is -g/2 and g/2 for whatever g, ties, subnormals and overflow among them."""
    script = f"""
import ml_dtypes, numpy as np, crossentropy as ce
rng = np.random.default_rng(0)
for dtype, bits in ((np.float16, 10), (ml_dtypes.bfloat16, 7)):
    # Near the middle between two numbers, nearer than float32 tells: double rounding would show.
    ties = (1 + (2 * rng.integers(0, 1 << bits, 4000) + 1) / 2.0 ** (bits + 1)) * 2.0 ** rng.integers(-30, 20, 4000)
    g = 2 * np.concatenate([ties, ties * (1 + 2.0**-40), ties * (1 - 2.0**-40), 10.0 ** rng.uniform(-12, 6, 4000)])
    z = np.full((g.size, {classes}), -np.inf, dtype)
    z[:, :2] = 0
    for targets in (np.zeros(g.size, int), (np.arange({classes}) == 0) * np.ones((g.size, 1))):
        dense = targets.ndim == 2
        dz = ce.cross_entropy_with_grad(z, targets, reduction="none", grad_output=g)[1].astype(float)
        step = 2.0 ** np.maximum(np.floor(np.log2(g / 2)), -14 if dtype == np.float16 else -126) / 2.0**bits
        expected = np.round(g / 2 / step) * step  # ties to even
        expected[expected > float(ml_dtypes.finfo(dtype).max)] = np.inf
        if not dense:  # at the target of a row all is float64 up to the rounding
            np.testing.assert_array_equal(dz[:, 0], -expected)
        for gradient in (-dz[:, 0], dz[:, 1]):  # else float32, which does not tell so near from the middle
            np.testing.assert_array_equal(gradient[:4000], expected[:4000])
            np.testing.assert_allclose(gradient, expected, rtol=2.0**-bits, atol=2.0**-24)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"CROSSENTROPY_ISA": instruction_set})


@pytest.mark.parametrize("rows", [70_000, 300_000])
def test_more_rows_than_float16_counts(rows, rng):
    z = rng.standard_normal((rows, 4)).astype(np.float16)
    t = rng.integers(0, 4, rows)
    loss, dlogits = ce.cross_entropy_with_grad(z, t)
    assert loss == pytest.approx(ce.reference.cross_entropy_with_grad(z, t)[0], rel=1e-7)
    assert (dlogits[np.arange(rows), t] < 0).all()
    scaled = ce.cross_entropy_with_grad(z, t, grad_output=65536.0)[1].astype(float) / 65536
    exact = ce.reference.cross_entropy_with_grad(z, t)[1]
    np.testing.assert_allclose(scaled, exact, rtol=2.0**-11 * 1.01)
    assert np.abs(dlogits.astype(float) / exact - 1).max() > 2.0**-10, "unscaled, float16 loses digits here"


@pytest.mark.parametrize("classes", [7, 400])
def test_special_rows(dtype, classes, rng):
    z = rng.standard_normal((6, classes)).astype(dtype)
    z[0, 1], z[1, 2], z[2], z[3, 3], z[4] = np.nan, np.inf, -np.inf, -np.inf, np.nan
    t = np.array([0, 0, 0, 0, -100, 1])
    loss, dlogits = ce.cross_entropy_with_grad(z, t, reduction="none")
    assert np.isnan(loss).tolist() == [True, True, True, False, False, False]
    assert np.isnan(dlogits.astype(float)).all(1).tolist() == [True, True, True, False, False, False]
    bits = dlogits.view(np.uint16)
    assert set(bits[:3].ravel()) == {0x7E00 if dtype == np.float16 else 0x7FC0}, "the canonical NaN"
    assert dlogits[3, 3] == loss[4] == 0
    assert (bits[4] == 0).all()


def test_layouts(dtype, rng):
    z = rng.standard_normal((5, 6, 7)).astype(dtype)
    t = rng.integers(0, 6, (5, 7))
    loss, dlogits = ce.cross_entropy_with_grad(z, t, axis=1)
    expected = ce.cross_entropy_with_grad(np.ascontiguousarray(np.moveaxis(z, 1, -1)), t)
    assert loss == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(np.moveaxis(dlogits, 1, -1).astype(float), expected[1].astype(float), atol=1e-3)
    buffer = z.copy()
    assert ce.cross_entropy_with_grad(buffer, t, axis=1, out=buffer)[1] is buffer
    assert buffer.tobytes() == dlogits.tobytes()
    if dtype == np.float16:
        swapped = z.astype(">f2")
        assert ce.cross_entropy(swapped, t, axis=1) == loss
    else:
        targets = rng.dirichlet(np.ones(6), 5).astype(dtype)
        matrix = rng.standard_normal((5, 6))
        assert ce.cross_entropy(matrix, targets) == ce.cross_entropy(matrix, targets.astype(float))


class _Lent:
    """A bfloat16 array as another library lends it: DLPack's own type code, which NumPy refuses."""

    def __init__(self, array):
        self.array, self.dtype = array, "framework.bfloat16"

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **_):
        capsule = self.array.view(np.uint16).__dlpack__()
        ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
        ctypes.pythonapi.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        tensor = ctypes.pythonapi.PyCapsule_GetPointer(capsule, b"dltensor")
        ctypes.c_uint8.from_address(tensor + 20).value = 4  # data, device, ndim; then kDLBfloat
        return capsule


def test_bfloat16_over_dlpack(rng):
    z = rng.standard_normal((5, 6)).astype(ml_dtypes.bfloat16)
    loss, dlogits = ce.cross_entropy_with_grad(_Lent(z), [0, 1, 2, 3, 4])
    expected = ce.cross_entropy_with_grad(z, [0, 1, 2, 3, 4])
    assert loss == expected[0]
    assert dlogits.dtype == ml_dtypes.bfloat16
    assert dlogits.tobytes() == expected[1].tobytes()
    assert ce.cross_entropy(_Lent(z[:, ::2]), [0, 1, 2, 0, 1]) == ce.cross_entropy(z[:, ::2], [0, 1, 2, 0, 1])


def test_ml_dtypes_is_optional():
    script = """
import sys; sys.modules["ml_dtypes"] = None
import numpy as np, crossentropy as ce
class Lent:
    dtype = "framework.bfloat16"
    def __dlpack__(self): ...
assert ce.cross_entropy(np.zeros((2, 3), np.float16), [0, 1]) > 1
ce.cross_entropy(Lent(), [0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "TypeError: bfloat16 needs the package ml_dtypes: install it with pip install ml_dtypes" in done.stderr


def test_no_copy_in_another_precision():
    """131 MB of logits; a copy of them in float32 would take twice as much again."""
    script = """
import resource, ml_dtypes, numpy as np, crossentropy as ce
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for dtype in (np.float16, ml_dtypes.bfloat16):
    for shape in ((512, 128256), (65536, 1000), (1 << 20, 60)):
        z = np.ones(shape, dtype)
        t = np.zeros(shape[0], int)
        before = peak()
        ce.cross_entropy_with_grad(z, t, out=z, num_threads=2)
        print(dtype.__name__, shape, peak() - before)
        del z
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        assert float(line.split()[-1]) < 10, line
    assert len(done.stdout.splitlines()) == 6


def test_module_multiplies_before_it_rounds(dtype, rng):
    z, t = rng.standard_normal((300, 5)).astype(dtype), rng.integers(0, 5, 300)
    loss = ce.CrossEntropyLoss()
    loss.forward(z, t)
    for scale in (1.0, 65536.0):
        expected = ce.cross_entropy_with_grad(z, t, grad_output=scale)[1]
        assert loss.backward(scale).tobytes() == expected.tobytes()
    z[0] = 0
    with pytest.raises(RuntimeError, match="backward: the logits or targets of the last forward have been changed"):
        loss.backward()


@pytest.mark.parametrize("others", [0.003, 0.0003, 1e-5, 0.0])
@pytest.mark.parametrize("top", [12.0, 30.0, 80.0, -0.001, -1e-5])
def test_differences_that_float32_does_not_hold(dtype, top, others, rng):
    # A logit thousands of times smaller than the maximum, or a maximum much smaller than the logits: their difference
    # is rounded in float32, and what is lost there would be lost from the loss of a confident row.
    z = (others * rng.standard_normal((20, 900))).astype(dtype)
    if top < 0:
        z = (-rng.uniform(16, 30, (20, 900))).astype(dtype)
    z[:, 5] = top
    loss = ce.cross_entropy(z, np.full(20, 5), reduction="none")
    exact = ce.reference.cross_entropy_with_grad(z, np.full(20, 5), reduction="none")[0]
    np.testing.assert_allclose(loss, exact, rtol=4 * 2.0**-23)
