"""Divergences between linear heads: those of their logits, without the logits in memory."""

import tracemalloc

import numpy as np
import pytest

import crossentropy as ce

ALL = ce.LinearDivergenceGradients._fields
FORMS = {
    "forward": ("kl_divergence", {}),
    "reverse": ("kl_divergence", {"direction": "reverse"}),
    "js": ("jensen_shannon", {"beta": 0.3}),
}
each_form = pytest.mark.parametrize("form", FORMS)


def functions(form):
    """From hidden states, from logits; and their options."""
    name, options = FORMS[form]
    return getattr(ce, f"linear_{name}_with_grad"), getattr(ce, f"{name}_with_grad"), options


def heads(rng, rows=(4, 5), classes=11, widths=(3, 7), dtypes=("float64", "float64")):
    found = []
    for width, dtype in zip(widths, dtypes, strict=True):
        found += [rng.standard_normal(shape).astype(dtype) for shape in ((*rows, width), (classes, width), (classes,))]
    h, w, b, teacher_h, teacher_w, teacher_b = found
    return (h, w, teacher_h, teacher_w), {"bias": b, "teacher_bias": teacher_b}


def of_logits(form, data, biases, **given):
    """The same by way of the logits."""
    h, w, teacher_h, teacher_w = data
    _, function, options = functions(form)
    z, t = h @ w.T + biases["bias"], teacher_h @ teacher_w.T + biases["teacher_bias"]
    loss, (dz, dt) = function(z, t, wrt=("logits", "teacher_logits"), **options, **given)
    rows = tuple(range(h.ndim - 1))
    return loss, ce.LinearDivergenceGradients(
        dz @ w, np.tensordot(dz, h, (rows, rows)), dz.sum(rows),
        dt @ teacher_w, np.tensordot(dt, teacher_h, (rows, rows)), dt.sum(rows),
    )  # fmt: skip


@each_form
@pytest.mark.parametrize("max_logits_bytes", [None, 1, 1000])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"reduction": "sum", "grad_output": -2.0, "temperature": 1.7},
        {"reduction": "none", "grad_output": np.arange(20.0).reshape(4, 5)},
        {"sample_weight": np.arange(20.0).reshape(4, 5) % 3},
        {"softcap": 3.0, "teacher_softcap": 2.0, "sample_weight": np.arange(20).reshape(4, 5) % 2, "reduction": "none"},
    ],
)
def test_as_from_logits(form, given, max_logits_bytes, rng):
    data, biases = heads(rng)
    function, _, options = functions(form)
    expected, of_expected = of_logits(form, data, biases, **given)
    loss, gradients = function(*data, **biases, wrt=ALL, max_logits_bytes=max_logits_bytes, **options, **given)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for got, exact in zip(gradients, of_expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-10, atol=1e-13)
    given = {name: value for name, value in given.items() if name != "grad_output"}
    alone = getattr(ce, function.__name__.removesuffix("_with_grad"))
    np.testing.assert_array_equal(alone(*data, **biases, max_logits_bytes=max_logits_bytes, **options, **given), loss)


def test_without_bias_and_only_what_is_asked_for(rng):
    data, _ = heads(rng)
    loss, gradients = ce.linear_kl_divergence_with_grad(*data)
    none = {"bias": np.zeros(11), "teacher_bias": np.zeros(11)}
    expected, of_expected = of_logits("forward", data, none)
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradients.hidden, of_expected.hidden, rtol=1e-10)
    np.testing.assert_allclose(gradients.classifier, of_expected.classifier, rtol=1e-10)
    assert gradients[2:] == (None, None, None, None)
    gradients = ce.linear_kl_divergence_with_grad(*data, wrt=("teacher_hidden",))[1]
    assert [gradient is None for gradient in gradients] == [True, True, True, False, True, True]
    np.testing.assert_allclose(gradients.teacher_hidden, of_expected.teacher_hidden, rtol=1e-10)


@each_form
@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float64"), ("float32", "float16")])
def test_dtypes(form, dtypes, rng):
    data, biases = heads(rng, dtypes=dtypes)
    function, _, options = functions(form)
    exact = [array.astype(float) for array in data], {name: array.astype(float) for name, array in biases.items()}
    expected, of_expected = of_logits(form, *exact, reduction="none")
    losses, gradients = function(*data, **biases, wrt=ALL, reduction="none", **options)
    assert losses.dtype == ("float64" if "float64" in dtypes else "float32")
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    given = (data[0], data[1], biases["bias"], data[2], data[3], biases["teacher_bias"])
    for got, wide, array in zip(gradients, of_expected, given, strict=True):
        assert got.dtype == array.dtype
        np.testing.assert_allclose(got, wide, rtol=2e-3, atol=2e-3 if array.dtype == "float16" else 1e-5)


@each_form
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_same_model_twice_is_exactly_0(form, dtype, rng):
    h, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((300, 33), (1000, 33), (1000,)))
    function, _, options = functions(form)
    both = {"bias": b, "teacher_bias": b.copy()}
    for bytes_held in (None, 100_000):
        given = {**both, **options, "max_logits_bytes": bytes_held, "wrt": ALL}
        loss, gradients = function(h, w, h.copy(), w.copy(), **given)
        assert loss == 0
        assert not any(gradient.any() for gradient in gradients)


def test_rows_of_weight_0_are_left_out(rng):
    data, biases = heads(rng, rows=(6,))
    weight = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 3.0])
    expected = ce.linear_kl_divergence_with_grad(*data, **biases, wrt=ALL, sample_weight=weight)
    for i in (0, 2):
        data[i][weight == 0] = np.nan
    loss, gradients = ce.linear_kl_divergence_with_grad(*data, **biases, wrt=ALL, sample_weight=weight)
    assert loss == expected[0]
    for got, exact in zip(gradients, expected[1], strict=True):
        np.testing.assert_array_equal(got, exact)
    assert not gradients.hidden[weight == 0].any()
    for reduction in ("mean", "none"):
        given = {"sample_weight": np.zeros(6), "reduction": reduction}
        losses, gradients = ce.linear_kl_divergence_with_grad(*data, **biases, wrt=ALL, **given)
        assert not np.any(losses)
        assert not any(gradient.any() for gradient in gradients)


def test_out(rng):
    data, biases = heads(rng, rows=(6,))
    expected = ce.linear_kl_divergence_with_grad(*data, **biases, wrt=ALL)[1]
    out = ce.LinearDivergenceGradients(*(np.full_like(array, 7) for array in expected))
    gradients = ce.linear_kl_divergence_with_grad(*data, **biases, wrt=ALL, out=out)[1]
    for got, place, exact in zip(gradients, out, expected, strict=True):
        assert got is place
        np.testing.assert_array_equal(got, exact)


def test_memory(rng):
    """Two chunks of logits, whatever the number of rows."""
    rows, classes, limit = 4096, 2000, 1 << 20
    h, w = rng.standard_normal((rows, 8), np.float32), rng.standard_normal((classes, 8), np.float32)
    for function in (ce.linear_kl_divergence_with_grad, ce.linear_jensen_shannon_with_grad):
        tracemalloc.start()
        function(h, w, h, w + 1, max_logits_bytes=limit)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * limit + h.nbytes + 3 * w.nbytes + 500_000 < rows * classes


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"teacher_hidden": np.ones((3, 7))},
            ValueError,
            r"^teacher_hidden: expected the rows of hidden, shape \(2, 7\)",
        ),
        ({"teacher_hidden": np.ones((2, 3))}, ValueError, r"^teacher_classifier: expected shape \(C, 3\)"),
        ({"teacher_classifier": np.ones((4, 7))}, ValueError, "^teacher_classifier: expected the 5 classes"),
        ({"teacher_bias": np.ones(4)}, ValueError, r"^teacher_bias: expected shape \(5,\)"),
        ({"bias": np.ones(4)}, ValueError, r"^bias: expected shape \(5,\)"),
        ({"classifier": np.ones((5, 4))}, ValueError, r"^classifier: expected shape \(C, 3\)"),
        ({"teacher_hidden": np.ones((2, 7), bool)}, TypeError, "^teacher_hidden: expected float16"),
        ({"wrt": "hidden"}, ValueError, "^wrt: expected some of"),
        ({"wrt": ("weight",)}, ValueError, "^wrt: expected some of"),
        ({"out": ce.LinearGradients()}, TypeError, "^out: expected LinearDivergenceGradients"),
        ({"out": ce.LinearDivergenceGradients(teacher_hidden=np.ones((2, 7)))}, ValueError, "not asked for"),
        ({"out": ce.LinearDivergenceGradients(np.ones((3, 2)).T)}, ValueError, "out.hidden: expected a C-contiguous"),
        ({"max_logits_bytes": 0}, ValueError, "^max_logits_bytes: expected at least 1"),
        ({"sample_weight": [1.0, -1.0]}, ValueError, "^reduction: expected 'sum' or 'none'"),
        (
            {"ignore_index": 0},
            TypeError,
            r"linear_kl_divergence_with_grad\(\) got .* 'ignore_index': it has no meaning",
        ),
    ],
)
def test_errors(given, error, message):
    data = {
        "hidden": np.ones((2, 3)),
        "classifier": np.ones((5, 3)),
        "teacher_hidden": np.ones((2, 7)),
        "teacher_classifier": np.ones((5, 7)),
    }
    with pytest.raises(error, match=message):
        ce.linear_kl_divergence_with_grad(**{**data, **given})
