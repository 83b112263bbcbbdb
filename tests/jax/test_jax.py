"""crossentropy.jax: values against the reference, derivatives and transformations as optax's."""

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import crossentropy as ce
import crossentropy.jax as cj
from crossentropy import _head
from crossentropy.jax import _rules

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0, "temperature": 0.7},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "softcap": 5.0, "temperature": 1.5},
]
REDUCTIONS = ["mean", "sum", "none"]
EPS = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


@pytest.fixture(autouse=True)
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


def problem(shape, probabilities=False, dtype="float64", axis=-1):
    """Logits, targets, class weights and sample weights; of indices one is ignored, one row does not count."""
    rng = np.random.default_rng(0)
    z = jnp.asarray(3 * rng.standard_normal(shape), dtype)
    rows = np.delete(shape, axis)
    t = rng.random(shape) if probabilities else rng.integers(0, shape[axis], rows)
    s = rng.random(rows) + 0.5
    if rows.size:
        if not probabilities:
            t.flat[1] = -100
        s.flat[0] = 0
    return z, jnp.asarray(t), jnp.asarray(rng.random(shape[axis]) + 0.5), jnp.asarray(s)


def reference(z, t, w, s, axis=-1, **options):
    """Loss and gradient from the definition in NumPy."""
    A, Y = np.moveaxis(np.asarray(z, np.float64), axis, -1), np.asarray(t)
    Y = np.moveaxis(Y, axis, -1) if Y.ndim == A.ndim else Y
    w, s = (None if x is None else np.asarray(x) for x in (w, s))
    loss, dlogits = ce.reference.cross_entropy_with_grad(A, Y, class_weight=w, sample_weight=s, **options)
    return loss, np.moveaxis(dlogits, -1, axis)


def gradient(function, z):
    """The gradient of the sum of a function's results."""
    return jax.grad(lambda z: function(z).sum())(z)


def close(actual, expected, eps):
    np.testing.assert_allclose(np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=eps, atol=eps)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((6,), 0), ((8, 7), -1), ((3, 5, 4), 1)], ids=str)
@pytest.mark.parametrize("path", ["core", "composed"])
def test_equals_the_reference(shape, axis, probabilities, options, path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for dtype, eps in EPS.items():
        z, t, w, s = problem(shape, probabilities, dtype, axis)
        for reduction in REDUCTIONS if dtype == "float64" else ["mean"]:
            arguments = {"reduction": reduction, **options}
            expected = reference(z, t, w, s, axis, **arguments)

            @jax.jit
            def loss(z, t=t, w=w, s=s, arguments=arguments):
                value = cj.cross_entropy(z, t, axis=axis, class_weight=w, sample_weight=s, **arguments)
                return value.sum(), value

            (_, value), dlogits = jax.value_and_grad(loss, has_aux=True)(z)
            close(value, expected[0], eps if dtype == "float64" else 1e-6)
            close(dlogits, expected[1], eps)
            assert dlogits.dtype == z.dtype
            assert value.dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("dtype", ["int32", "float16", "float32"])
def test_without_64_bits(dtype):
    z, t, w, s = (np.asarray(array) for array in problem((6, 5)))
    z = z.astype(dtype)
    expected = reference(z, t, w, s)
    with jax.enable_x64(False):
        loss = cj.cross_entropy(z, t, class_weight=w, sample_weight=s)
        assert loss.dtype == "float32"
        assert float(loss) == pytest.approx(expected[0], rel=1e-6)
        if dtype != "int32":
            close(jax.grad(cj.cross_entropy)(jnp.asarray(z), t), reference(z, t, None, None)[1], EPS[dtype])


def test_same_bits_as_numpy():
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((300, 1000), np.float32), rng.integers(0, 1000, 300)
    loss, dlogits = jax.value_and_grad(cj.cross_entropy)(z, t)
    expected = ce.cross_entropy_with_grad(z, t)
    assert float(loss) == np.float32(expected[0])
    assert np.array_equal(dlogits, expected[1])


CONFIDENT = jnp.array([[20.0, 0.0, 0.0]], jnp.float32)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_a_confident_row_keeps_its_digits(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    r = 2 * math.exp(-20)
    for transformed in (jax.value_and_grad, lambda f: jax.jit(jax.value_and_grad(f))):
        loss, dlogits = transformed(cj.cross_entropy)(CONFIDENT, jnp.array([0]))
        assert float(loss) == pytest.approx(math.log1p(r), rel=1e-6)
        assert float(dlogits[0, 0]) == pytest.approx(-r / (1 + r), rel=1e-6)
    tangent = jax.jvp(lambda z: cj.cross_entropy(z, jnp.array([0])), (CONFIDENT,), (jnp.eye(3, dtype=np.float32)[:1],))[
        1
    ]
    assert float(tangent) == pytest.approx(-r / (1 + r), rel=1e-6)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_edge_cases(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    inf, nan = math.inf, math.nan
    rows = jnp.array([[nan, 0, 0], [-inf, 1, 0], [-inf, 1, 0], [-inf] * 3, [inf, 0, 0], [nan] * 3, [2, 1, 0.1]])
    t = jnp.array([1, 1, 0, 0, 1, -100, 1])
    expected = reference(rows, t, None, None, reduction="none")
    loss = partial(cj.cross_entropy, targets=t, reduction="none")
    np.testing.assert_allclose(loss(rows), expected[0], rtol=1e-12)
    np.testing.assert_allclose(gradient(loss, rows), expected[1], rtol=1e-12, atol=1e-16)
    one_hot = jnp.array([[0.0, 1.0, 0.0]])
    assert jnp.isfinite(cj.cross_entropy(rows[1:2], one_hot))  # a zero coefficient removes its term
    assert jnp.isnan(cj.cross_entropy(rows[6:], jnp.array([[-0.1, 1.0, 0.1]])))


@pytest.mark.parametrize("path", ["core", "composed"])
def test_nothing_counted_is_zero(path, request):
    if path == "composed":
        request.getfixturevalue("composed")
    for z, t, options in (
        (jnp.zeros((0, 3)), jnp.zeros(0, int), {}),
        (jnp.full((2, 3), math.nan), jnp.full(2, -100), {}),
        (jnp.ones((2, 3)), jnp.array([0, 1]), {"sample_weight": jnp.zeros(2)}),
        (jnp.ones((2, 3)), jnp.array([0, 1]), {"where": jnp.zeros((2, 3), bool)}),
    ):
        loss, dlogits = jax.value_and_grad(partial(cj.cross_entropy, **options))(z, t)
        assert loss == 0
        assert not dlogits.any()


# Derivatives and transformations.


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("options", OPTIONS[::2], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_derivatives(probabilities, options, reduction):
    z, t, w, s = problem((4, 3), probabilities)

    @jax.jit
    def loss(z, w, s, q=None):
        targets = t if q is None else q
        return cj.cross_entropy(z, targets, class_weight=w, sample_weight=s, reduction=reduction, **options)

    arguments = (z, w, s + 0.1, *([t + 0.1] if probabilities else []))
    check_grads(loss, arguments, order=2, modes=("fwd", "rev"))


def transforms(loss):
    """Of a function of logits and targets with one result a row."""
    rng = np.random.default_rng(0)
    z, v, zs = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), rng.standard_normal((3, 6, 4))
    t, ts, g = rng.integers(0, 4, 6), rng.integers(0, 4, (3, 6)), rng.random(6)

    def mean(z, t):
        return loss(z, t).mean()

    return {
        "value": lambda: loss(z, t),
        "grad": lambda: jax.grad(mean)(z, t),
        "value_and_grad": lambda: jax.value_and_grad(mean)(z, t),
        "vjp": lambda: jax.vjp(lambda z: loss(z, t), z)[1](g),
        "jvp": lambda: jax.jvp(lambda z: loss(z, t), (z,), (v,)),
        "jacfwd": lambda: jax.jacfwd(loss)(z, t),
        "jacrev": lambda: jax.jacrev(loss)(z, t),
        "linearize": lambda: jax.linearize(lambda z: loss(z, t), z)[1](v),
        "hessian": lambda: jax.hessian(mean)(z, t),
        "reverse over reverse": lambda: jax.jacrev(jax.jacrev(mean))(z, t),
        "third": lambda: jax.jacfwd(jax.hessian(mean))(z[:2], t[:2]),
        "vmap": lambda: jax.vmap(loss)(zs, ts),
        "vmap of logits": lambda: jax.vmap(loss, in_axes=(2, None))(np.moveaxis(zs, 0, 2), t),
        "vmap of targets": lambda: jax.vmap(loss, in_axes=(None, 0))(z, ts),
        "vmap of rows": lambda: jax.vmap(loss)(z, t),
        "vmap of vmap": lambda: jax.vmap(jax.vmap(loss))(zs, ts),
        "vmap of grad": lambda: jax.vmap(jax.grad(mean))(zs, ts),
        "vmap of grad of rows": lambda: jax.vmap(jax.grad(loss))(z, t),
        "vmap of jvp": lambda: jax.vmap(lambda z, t: jax.jvp(lambda z: loss(z, t), (z,), (v,)))(zs, ts),
        "vmap of hessian": lambda: jax.vmap(jax.hessian(mean))(zs, ts),
        "grad of vmap": lambda: jax.grad(lambda zs: jax.vmap(mean)(zs, ts).sum())(zs),
        "grad of jvp": lambda: jax.grad(lambda z: jax.jvp(lambda z: mean(z, t), (z,), (v,))[1])(z),
        "checkpoint": lambda: jax.grad(jax.checkpoint(lambda z: mean(2 * z, t)))(z),
        "scan": lambda: jax.grad(lambda zs: jax.lax.scan(lambda a, x: (a + mean(*x), a), 0.0, (zs, ts))[0])(zs),
    }


OURS = transforms(cj.softmax_cross_entropy_with_integer_labels)
THEIRS = transforms(optax.softmax_cross_entropy_with_integer_labels)


@pytest.mark.parametrize("how", ["as it is", "jit", "rules of half precision"])
@pytest.mark.parametrize("name", OURS)
def test_transform(name, how, monkeypatch):
    if how == "rules of half precision":  # on numbers that need no rounding
        monkeypatch.setattr(_rules, "_one_pass", lambda *_: False)
        jax.clear_caches()
    expected = THEIRS[name]()
    actual = (OURS[name] if how == "as it is" else jax.jit(OURS[name]))()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), actual, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    z, t, _, _ = problem((64, 50), dtype=dtype)
    for scale in (1.0, 1e-4, 512.0):
        for reduction in ("mean", "none"):
            expected = reference(z, t, None, None, reduction=reduction, grad_output=scale)[1]
            function = partial(cj.cross_entropy, targets=t, reduction=reduction)
            dlogits = jax.jit(jax.grad(lambda z, f=function, scale=scale: scale * f(z).sum()))(z)
            unit = np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
            assert (np.abs(np.asarray(dlogits, np.float64) - expected) <= 0.51 * unit).all()


# In place of optax's.


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2), (2, 1)], ids=str)
def test_optax_integer_labels(axis):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 4, 5))
    axes = np.atleast_1d(axis)
    classes = int(np.prod([z.shape[a] for a in axes]))
    labels = rng.integers(0, classes, np.delete(z.shape, axes))
    ours, theirs = cj.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(ours(z, labels, axis), theirs(z, labels, axis), rtol=1e-12)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None], ids=str)
def test_optax_probabilities(axis):
    rng = np.random.default_rng(0)
    z, q = rng.standard_normal((3, 4, 5)), rng.random((3, 4, 5))
    for labels in (q, q[:1], q > 0.5, (q > 0.5).astype(int)):
        expected = optax.softmax_cross_entropy(z, jnp.broadcast_to(labels, z.shape), axis)
        np.testing.assert_allclose(cj.softmax_cross_entropy(z, labels, axis), expected, rtol=1e-12)


def test_optax_where():
    rng = np.random.default_rng(0)
    z, q = rng.standard_normal((6, 5)), rng.random((6, 5))
    t = rng.integers(0, 5, 6)
    elements = rng.random((6, 5)) > 0.3
    elements[np.arange(6), t] = True
    elements[2] = False
    for where in (elements, rng.random(6) > 0.5):
        pairs = [
            (cj.softmax_cross_entropy, optax.softmax_cross_entropy, q),
            (cj.softmax_cross_entropy_with_integer_labels, optax.softmax_cross_entropy_with_integer_labels, t),
        ]
        for ours, theirs, targets in pairs:
            actual, expected = (f(z, targets, where=jnp.asarray(where)) for f in (ours, theirs))
            np.testing.assert_allclose(actual, expected, rtol=1e-12)
            actual, expected = (
                gradient(partial(f, labels=targets, where=jnp.asarray(where)), z) for f in (ours, theirs)
            )
            np.testing.assert_allclose(actual, np.nan_to_num(expected), rtol=1e-10, atol=1e-14)


# Errors.


@pytest.mark.parametrize("target", [9, -1])
def test_class_index_out_of_range(target):
    z, t = jnp.zeros((3, 5)), jnp.array([1, target, 3])
    message = rf"expected class indices in \[0, 5\) or ignore_index -100, got {target} in row 1"
    with pytest.raises(IndexError, match=message):
        cj.cross_entropy(z, t)
    with pytest.raises(IndexError, match=message):
        jax.grad(cj.cross_entropy)(z, t)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(cj.cross_entropy)(z, t))
    with pytest.raises(IndexError, match=message):
        cj.linear_cross_entropy(jnp.zeros((3, 2)), jnp.zeros((5, 2)), t)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_index_dtypes(dtype):
    z, t, _, _ = problem((6, 5))
    t = jnp.where(t < 0, 0, t)
    assert cj.cross_entropy(z, t.astype(dtype)) == cj.cross_entropy(z, t)
    assert jax.jit(cj.cross_entropy)(z, t.astype(dtype)) == cj.cross_entropy(z, t)


def test_unsigned_indices_do_not_wrap():
    t = np.array([1, 2**64 - 100], np.uint64)
    with pytest.raises(IndexError, match=f"got {2**64 - 100} in row 1"):
        cj.cross_entropy(jnp.zeros((2, 5)), t)
    with pytest.raises(IndexError, match=f"got {2**32 - 100} in row 0"):
        cj.cross_entropy(jnp.zeros((1, 5)), np.array([2**32 - 100], np.uint32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="in row 0"):
        jax.block_until_ready(jax.jit(cj.cross_entropy)(jnp.zeros((1, 5)), np.array([2**32 - 100], np.uint32)))
    with pytest.raises(jax.errors.JaxRuntimeError, match="in row 1"):
        jax.block_until_ready(jax.jit(cj.cross_entropy)(jnp.zeros((2, 5)), t))


def test_composed_marks_a_bad_row(composed):
    losses = jax.jit(partial(cj.cross_entropy, reduction="none"))(jnp.zeros((3, 5)), jnp.array([1, 7, 3]))
    assert np.isnan(losses).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("error", "args", "options", "message"),
    [
        (TypeError, (jnp.zeros((2, 3), bool), [0, 1]), {}, "logits: expected"),
        (TypeError, (jnp.zeros((2, 3), complex), [0, 1]), {}, "logits: expected"),
        (ValueError, (1.0, 0), {}, "logits: expected at least one axis"),
        (ValueError, (jnp.zeros((2, 0)), jnp.zeros(2, int)), {}, "at least one class"),
        (ValueError, (jnp.zeros((2, 3)), jnp.array([0])), {}, r"class indices \(integers\) of shape \(2,\)"),
        (TypeError, (jnp.zeros((2, 3)), jnp.array([0.0, 1.0])), {}, r"class indices \(integers\) of shape \(2,\)"),
        (TypeError, (jnp.zeros((2, 3)), jnp.zeros((2, 3), complex)), {}, "targets: expected probabilities"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"axis": 2}, "axis: expected"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"class_weight": jnp.ones(2)}, "class_weight: expected shape"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"class_weight": -jnp.ones(3)}, "class_weight: expected finite"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"sample_weight": jnp.array([1, math.nan])}, "sample_weight: exp"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"label_smoothing": 2.0}, "label_smoothing: expected"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"reduction": "average"}, "reduction: expected"),
    ],
)
def test_errors(error, args, options, message):
    with pytest.raises(error, match=message):
        cj.cross_entropy(args[0], jnp.asarray(args[1]), **options)


def test_bad_weights_in_a_traced_function():
    loss = jax.jit(lambda s: cj.cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 1]), sample_weight=s))
    with pytest.raises(jax.errors.JaxRuntimeError, match="sample_weight: expected finite weights of at least 0"):
        jax.block_until_ready(loss(jnp.array([1.0, -1.0])))


# The head.


@pytest.mark.parametrize("rows_a_chunk", [1, 3, 1000])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("options", OPTIONS[::2], ids=str)
def test_head_equals_whole_logits(rows_a_chunk, probabilities, options):
    rng = np.random.default_rng(0)
    h, W, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 3)), rng.standard_normal(5)
    _, t, w, s = problem((2, 4, 5), probabilities)
    for reduction in ("mean", "none"):
        arguments = {"class_weight": w, "sample_weight": s, "reduction": reduction, **options}

        def head(h, W, b, t, arguments=arguments):
            return cj.linear_cross_entropy(h, W, t, bias=b, max_logits_bytes=rows_a_chunk * 5 * 8, **arguments)

        def whole(h, W, b, t, arguments=arguments):
            return cj.cross_entropy(h @ W.T + b, t, **arguments)

        np.testing.assert_allclose(jax.jit(head)(h, W, b, t), whole(h, W, b, t), rtol=1e-12)
        wanted = (0, 1, 2, 3) if probabilities else (0, 1, 2)
        actual, expected = (jax.jit(jax.jacrev(f, argnums=wanted))(h, W, b, t) for f in (head, whole))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), actual, expected)


def test_head_second_derivatives():
    rng = np.random.default_rng(0)
    h, W, t = rng.standard_normal((5, 2)), rng.standard_normal((4, 2)), np.array([0, 1, 3, -100, 2])
    check_grads(partial(cj.linear_cross_entropy, targets=t, max_logits_bytes=2 * 4 * 8), (h, W), order=2)
    mapped = jax.vmap(cj.linear_cross_entropy, in_axes=(0, None, None))(np.stack([h, -h]), W, t)
    np.testing.assert_allclose(mapped[1], cj.linear_cross_entropy(-h, W, t))


def test_head_rows_that_do_not_count_hold_anything():
    h, W, t = jnp.ones((3, 2)).at[1].set(math.nan), jnp.ones((4, 2)), jnp.array([0, -100, 1])
    loss, gradients = jax.value_and_grad(cj.linear_cross_entropy, argnums=(0, 1))(h, W, t)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_head_in_half_precision(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    h, W = (jnp.asarray(rng.standard_normal(n), dtype) for n in ((64, 32), (100, 32)))
    t = rng.integers(0, 100, 64)
    exact = jax.value_and_grad(cj.linear_cross_entropy, argnums=(0, 1))(h.astype(float), W.astype(float), t)
    monkeypatch.setattr(_head, "MAX_LOGITS_BYTES", 8 * 100 * 4)
    loss, gradients = jax.value_and_grad(cj.linear_cross_entropy, argnums=(0, 1))(h, W, t)
    assert float(loss) == pytest.approx(float(exact[0]), rel=1e-5)
    for actual, expected in zip(gradients, exact[1], strict=True):
        assert actual.dtype == dtype
        assert np.linalg.norm(actual.astype(float) - expected) < 2 * jnp.finfo(dtype).eps * np.linalg.norm(expected)


def test_head_errors():
    with pytest.raises(ValueError, match=r"classifier: expected shape \(C, 3\)"):
        cj.linear_cross_entropy(jnp.ones((2, 3)), jnp.ones((4, 2)), jnp.array([0, 1]))
    with pytest.raises(ValueError, match=r"bias: expected shape \(4,\)"):
        cj.linear_cross_entropy(jnp.ones((2, 3)), jnp.ones((4, 3)), jnp.array([0, 1]), bias=jnp.ones(3))
    with pytest.raises(ValueError, match="max_logits_bytes: expected at least 1"):
        cj.linear_cross_entropy(jnp.ones((2, 3)), jnp.ones((4, 3)), jnp.array([0, 1]), max_logits_bytes=0)


# Linux tells the largest resident size since it was last asked to forget it.
MEMORY = """
import pathlib, jax, jax.numpy as jnp, crossentropy.jax as cj
rows, width, classes = 4096, 64, 32000
h, W = jnp.ones((rows, width)), jnp.ones((classes, width))
t = jnp.zeros(rows, int)
step = jax.jit(jax.grad(cj.linear_cross_entropy, argnums=(0, 1)))
compiled = step.lower(h, W, t).compile()
pathlib.Path("/proc/self/clear_refs").write_text("5")
def resident(): return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = resident()
jax.block_until_ready(compiled(h, W, t))
print((resident() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="/proc is Linux's")
def test_head_never_holds_the_logits():
    used = int(subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True).stdout)
    assert used < 4096 * 32000 * 4 / 2


# The interface to XLA.

LAYOUT = r"""
#include "xla/ffi/api/c_api.h"
#include "xla_abi.hpp"
using namespace crossentropy::xla;
#define SAME(ours, field, theirs, their_field) \
    static_assert(offsetof(ours, field) == offsetof(theirs, their_field)); \
    static_assert(sizeof(ours::field) == sizeof(theirs::their_field))
SAME(Extension, type, XLA_FFI_Extension_Base, type);
SAME(Extension, next, XLA_FFI_Extension_Base, next);
SAME(ApiVersion, major_version, XLA_FFI_Api_Version, major_version);
SAME(ApiVersion, minor_version, XLA_FFI_Api_Version, minor_version);
SAME(Metadata, api_version, XLA_FFI_Metadata, api_version);
SAME(Metadata, traits, XLA_FFI_Metadata, traits);
SAME(MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);
SAME(ErrorCreateArgs, message, XLA_FFI_Error_Create_Args, message);
SAME(ErrorCreateArgs, code, XLA_FFI_Error_Create_Args, errc);
SAME(Api, error_create, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME(Buffer, dtype, XLA_FFI_Buffer, dtype);
SAME(Buffer, data, XLA_FFI_Buffer, data);
SAME(Buffer, rank, XLA_FFI_Buffer, rank);
SAME(Buffer, dims, XLA_FFI_Buffer, dims);
SAME(ByteSpan, data, XLA_FFI_ByteSpan, ptr);
SAME(ByteSpan, size, XLA_FFI_ByteSpan, len);
SAME(Scalar, dtype, XLA_FFI_Scalar, dtype);
SAME(Scalar, value, XLA_FFI_Scalar, value);
SAME(Buffers, size, XLA_FFI_Args, size);
SAME(Buffers, buffers, XLA_FFI_Args, args);
SAME(Buffers, size, XLA_FFI_Rets, size);
SAME(Buffers, buffers, XLA_FFI_Rets, rets);
SAME(Attributes, size, XLA_FFI_Attrs, size);
SAME(Attributes, names, XLA_FFI_Attrs, names);
SAME(Attributes, values, XLA_FFI_Attrs, attrs);
SAME(CallFrame, api, XLA_FFI_CallFrame, api);
SAME(CallFrame, arguments, XLA_FFI_CallFrame, args);
SAME(CallFrame, results, XLA_FFI_CallFrame, rets);
SAME(CallFrame, attributes, XLA_FFI_CallFrame, attrs);
static_assert(sizeof(ErrorCreateArgs) == XLA_FFI_Error_Create_Args_STRUCT_SIZE + 4);
static_assert(kMetadataExtension == XLA_FFI_Extension_Metadata);
static_assert(int(ErrorCode::invalid_argument) == XLA_FFI_Error_Code_INVALID_ARGUMENT);
static_assert(int(ErrorCode::out_of_range) == XLA_FFI_Error_Code_OUT_OF_RANGE);
static_assert(int(ErrorCode::internal) == XLA_FFI_Error_Code_INTERNAL);
static_assert(kApiMajor == XLA_FFI_API_MAJOR && kApiMinor <= XLA_FFI_API_MINOR);
#define SAME_TYPE(ours, theirs) static_assert(int(DataType::ours) == XLA_FFI_DataType_##theirs)
SAME_TYPE(int32, S32); SAME_TYPE(int64, S64); SAME_TYPE(uint32, U32); SAME_TYPE(uint64, U64);
SAME_TYPE(float16, F16); SAME_TYPE(float32, F32); SAME_TYPE(float64, F64); SAME_TYPE(bfloat16, BF16);
"""


def test_structs_are_laid_out_as_jaxs_header_says(tmp_path):
    source = tmp_path / "layout.cpp"
    source.write_text(LAYOUT)
    bindings = Path(__file__).parents[2] / "src" / "bindings"
    command = [
        os.environ.get("CXX", "g++"),
        "-std=c++17",
        "-fsyntax-only",
        f"-I{bindings}",
        f"-I{jax.ffi.include_dir()}",
        source,
    ]
    subprocess.run(command, check=True)
