"""Kullback-Leibler and Jensen-Shannon divergences between the logits of two models."""

import ml_dtypes
import numpy as np
import pytest
from divergence_oracle import ALONE, BOTH, FORMS, each_form, gradient_error, oracle, relative_error

import crossentropy as ce

# Errors of value and gradients, and how far apart logits are.
GOALS = {
    "float32": (1e-6, 1e-6, (1e-3, 0.1, 1.0, 10.0)),
    "float64": (1e-13, 1e-14, (1e-9, 1e-6, 1e-3, 1.0, 10.0)),
}
each_dtype = pytest.mark.parametrize("dtype", GOALS)


def of_oracle(options):
    return options or {"beta": 0.5}


def pairs(rng, dtype, distance):
    """Rows of two models: name, student, teacher."""

    def pair(name, z, change):
        z = z.astype(dtype)
        return name, (z + change).astype(dtype), z

    for classes in (2, 3, 150):
        z = 3 * rng.standard_normal(classes)
        change = distance * rng.standard_normal(classes)
        yield pair("normal", z, change)
        yield pair("confident", np.r_[30.0, z[1:]], change)
        yield pair("shifted", z + 1000.0, change - 3000.0)
    z = 3 * rng.standard_normal(50)
    yield pair("the likeliest differs", np.r_[9.0, z], np.r_[distance, np.zeros(50)])
    yield pair("an unlikely one differs", np.r_[-20.0, z], np.r_[distance, np.zeros(50)])
    yield pair("far from the likeliest", np.r_[0.0, -40.0, z - 50], np.r_[0.0, distance, np.zeros(50)])


@each_form
@each_dtype
def test_against_mpmath(form, dtype, rng):
    function, options = FORMS[form]
    of_value, of_gradient, distances = GOALS[dtype]
    for distance in distances:
        for name, z, t in pairs(rng, dtype, distance):
            expected = oracle(z, t, **of_oracle(options))
            loss, gradients = function(z, t, wrt=BOTH, reduction="sum", **options)
            case = f"{name}, {z.size} classes, {distance} apart"
            assert relative_error(loss, expected) <= of_value, case
            for wrt, gradient in gradients._asdict().items():
                assert gradient.dtype == dtype
                assert gradient_error(gradient, expected, wrt) <= of_gradient, (case, wrt)


@each_form
@each_dtype
@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 2.5},
        {"softcap": 5.0, "teacher_softcap": 5.0},
        {"softcap": 4.0, "teacher_softcap": 7.0, "temperature": 0.5},
        {"softcap": 6.0},
        {"teacher_softcap": 6.0},
    ],
    ids=str,
)
def test_soft_caps_and_temperature(form, dtype, given, rng):
    function, options = FORMS[form]
    z = (3 * rng.standard_normal(37)).astype(dtype)
    # Where caps differ, so do the models.
    t = (z + (1e-4 if "softcap" in given or "temperature" in given else 1.0) * rng.standard_normal(37)).astype(dtype)
    expected = oracle(z, t, **of_oracle(options), **given)
    loss, gradients = function(z, t, wrt=BOTH, reduction="sum", **options, **given)
    of_value, of_gradient, _ = GOALS[dtype]
    assert relative_error(loss, expected) <= of_value
    for wrt, gradient in gradients._asdict().items():
        assert gradient_error(gradient, expected, wrt) <= 2 * of_gradient


@pytest.mark.parametrize("softcap", [2.0, 30.0])
def test_caps_of_nearly_equal_models(softcap, rng):
    z = 8 * rng.standard_normal(40)
    t = z + 1e-9 * rng.standard_normal(40)
    caps = {"softcap": softcap, "teacher_softcap": softcap}
    assert relative_error(ce.kl_divergence(z, t, **caps), oracle(z, t, **caps)) <= 1e-12


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@each_form
def test_half_precision(form, dtype, rng):
    function, options = FORMS[form]
    z, t = (3 * rng.standard_normal((2, 300))).astype(dtype)
    expected = oracle(z, t, **of_oracle(options))
    loss, gradients = function(z, t, wrt=BOTH, reduction="none", **options)
    assert loss.dtype == np.float32
    assert relative_error(loss, expected) <= 1e-6
    for wrt, gradient in gradients._asdict().items():
        assert gradient.dtype == dtype
        exact = np.array([float(g) for g in expected.gradients[wrt]])
        rounded = exact.astype(dtype).astype(float)
        np.testing.assert_allclose(gradient.astype(float), exact, atol=1.01 * np.abs(rounded - exact).max() + 1e-7)
        np.testing.assert_allclose(gradient.astype(float), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-7)


def test_two_dtypes(rng):
    z, t = rng.standard_normal((2, 5, 9))
    for dtypes in [("float16", "float32"), ("float32", "float64"), ("float64", "float16")]:
        x, y = z.astype(dtypes[0]), t.astype(dtypes[1])
        losses, gradients = ce.kl_divergence_with_grad(x, y, wrt=BOTH, reduction="none")
        wide, expected = ce.kl_divergence_with_grad(x.astype(float), y.astype(float), wrt=BOTH, reduction="none")
        assert losses.dtype == ("float64" if "float64" in dtypes else "float32")
        assert [g.dtype for g in gradients] == list(dtypes)
        np.testing.assert_allclose(losses, wide, rtol=1e-6)
        for got, exact in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(got, exact, rtol=1e-3 if got.dtype == "float16" else 1e-5, atol=1e-4)


class TestProperties:
    @each_form
    @each_dtype
    @pytest.mark.parametrize("classes", [1, 2, 129, 1000])
    def test_zero_for_equal_models(self, form, dtype, classes, rng):
        function, options = FORMS[form]
        z = (64 * rng.standard_normal((7, classes))).astype(dtype)
        z[0, : classes // 2] = -np.inf
        z = np.round(z * 64) / 64
        for t in (z, z + 1024, z - 17):  # exact sums
            for given in ({}, {"temperature": 0.7}) if t is not z else ({}, {"softcap": 5.0, "teacher_softcap": 5.0}):
                loss, gradients = function(z, t, wrt=BOTH, **options, **given)
                assert loss == 0
                assert not any(gradient.any() for gradient in gradients)

    @each_form
    def test_never_negative(self, form, rng):
        function, options = ALONE[form]
        for dtype, bits in (("float32", np.uint32), ("float64", np.uint64), ("float16", np.uint16)):
            z, t = rng.integers(0, np.iinfo(bits).max, (2, 4000, 5), bits, endpoint=True).view(dtype)
            values = function(z, t, reduction="none", **options)
            assert not (values < 0).any()
            with np.errstate(all="ignore"):
                near = np.nextafter(z, np.zeros_like(z))
            values = function(z, near, reduction="none", **options)
            assert not (values < 0).any()
        z = rng.standard_normal((4000, 9))
        for size in (1e-16, 1e-13, 1e-10):
            values = function(z, z + size * rng.standard_normal(z.shape), reduction="none", **options)
            assert (values >= 0).all()

    @each_dtype
    def test_reverse_is_forward_with_the_models_exchanged(self, dtype, rng):
        z, t = rng.standard_normal((2, 6, 300)).astype(dtype)
        forward = ce.kl_divergence_with_grad(z, t, wrt=BOTH, reduction="none")
        reverse = ce.kl_divergence_with_grad(t, z, wrt=BOTH, reduction="none", direction="reverse")
        assert forward[0].tobytes() == reverse[0].tobytes()
        assert forward[1].logits.tobytes() == reverse[1].teacher_logits.tobytes()
        assert forward[1].teacher_logits.tobytes() == reverse[1].logits.tobytes()

    def test_js_is_symmetric_and_bounded(self, rng):
        z, t = 30 * rng.standard_normal((2, 50, 40))
        there, back = ce.jensen_shannon(z, t, reduction="none"), ce.jensen_shannon(t, z, reduction="none")
        np.testing.assert_allclose(there, back, rtol=1e-13)
        assert (there <= np.log(2) * (1 + 1e-15)).all()

    def test_js_of_a_small_beta_is_kl(self, rng):
        z, t = rng.standard_normal((2, 9))
        for beta, direction in ((1e-9, "forward"), (1 - 1e-9, "reverse")):
            kl = ce.kl_divergence(z, t, direction=direction)
            assert ce.jensen_shannon(z, t, beta=beta) / 1e-9 == pytest.approx(kl, rel=1e-6)


def test_reductions_and_weights(rng):
    z, t, weight = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5)), rng.random((2, 3))
    weight[1, 2] = 0
    losses, gradients = ce.kl_divergence_with_grad(z, t, wrt=BOTH, reduction="none")
    total, of_total = ce.kl_divergence_with_grad(z, t, wrt=BOTH, reduction="sum", sample_weight=weight, grad_output=3.0)
    mean, of_mean = ce.kl_divergence_with_grad(z, t, wrt=BOTH, sample_weight=weight)
    rows, of_rows = ce.kl_divergence_with_grad(z, t, reduction="none", sample_weight=weight, grad_output=2 * weight)
    assert total == pytest.approx((losses * weight).sum(), rel=1e-14)
    assert mean == pytest.approx((losses * weight).sum() / weight.sum(), rel=1e-14)
    np.testing.assert_allclose(rows, losses * weight, rtol=1e-14)
    np.testing.assert_allclose(of_rows.logits, gradients.logits * 2 * weight[..., None] ** 2, rtol=1e-13)
    for name in BOTH:
        g = getattr(gradients, name)
        np.testing.assert_allclose(getattr(of_total, name), 3 * g * weight[..., None], rtol=1e-13)
        np.testing.assert_allclose(getattr(of_mean, name), g * weight[..., None] / weight.sum(), rtol=1e-13)
    assert ce.kl_divergence(z, t) == pytest.approx(losses.mean(), rel=1e-14)
    assert ce.kl_divergence(z[0, 0], t[0, 0], reduction="none").shape == ()
    negative = ce.kl_divergence(z, t, reduction="sum", sample_weight=-weight)
    assert negative == -ce.kl_divergence(z, t, reduction="sum", sample_weight=weight)


@pytest.mark.parametrize("scale", [1e-40, 1e-300, 1e40, 1e300])
def test_scales_that_float32_does_not_hold(scale, rng):
    z, t = rng.standard_normal((2, 3, 9)).astype(np.float32)
    expected = ce.kl_divergence_with_grad(z, t, reduction="sum", wrt=BOTH)[1]
    of_rows = np.full(3, scale)
    for weight in (1 / scale, 0.25 / scale):
        if not 1e-100 <= weight <= 1e100:
            continue
        given = {"sample_weight": np.full(3, weight), "grad_output": of_rows, "reduction": "none"}
        for got, exact in zip(ce.kl_divergence_with_grad(z, t, wrt=BOTH, **given)[1], expected, strict=True):
            np.testing.assert_allclose(got, exact.astype(float) * weight * scale, rtol=1e-6)
    huge = ce.kl_divergence_with_grad(z, t, reduction="sum", grad_output=scale)[1].logits
    with np.errstate(over="ignore"):
        wide = (expected.logits.astype(float) * scale).astype(np.float32)
    np.testing.assert_allclose(huge, wide, rtol=1e-5)
