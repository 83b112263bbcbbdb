"""Classes split over two devices: against the definition in float64, on all options and padded shards."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax_oracle import OPTIONS, close, problem, reference

import crossentropy.jax as cj

ROWS, CLASSES, PADDED, WIDTH = 6, 13, 14, 3
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}


def mesh_of_two():
    return jax.make_mesh((2,), ("model",), (AxisType.Auto,))


def padded(array):
    """The classes, and NaN where there are none."""
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, PADDED - CLASSES)], constant_values=jnp.nan)


def split_loss(options, t, w=None):
    split = P(None, "model")
    return jax.jit(jax.shard_map(
        lambda z, t, s: cj.vocab_parallel_cross_entropy(
            z, t, num_classes=CLASSES, class_weight=w, sample_weight=s, **options),
        mesh=mesh_of_two(),
        in_specs=(split, split if t.ndim == 2 else P(), P()),
        out_specs=P(),
    ))  # fmt: skip


@pytest.mark.parametrize("options", [*OPTIONS, {"focal_gamma": 2.0}], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_equals_the_definition(probabilities, options, x64):
    if probabilities and "focal_gamma" in options:
        pytest.skip("of class indices alone")
    for dtype, eps in TOLERANCE.items():
        z, t, w, s = problem((ROWS, CLASSES), probabilities, dtype)
        z = z.at[2].set(0).at[2, 4].set(60)  # a confident row
        for reduction in ("mean", "none") if dtype == "float64" else ("mean",):
            of = {"reduction": reduction, **options}
            expected = reference(z, t, w, s, **of)
            given = padded(t) if probabilities else t
            loss = split_loss(of, t, w)
            value, pullback = jax.vjp(lambda z, loss=loss, t=given, s=s: loss(z, t, s), padded(z))
            close(value, expected[0], eps)
            gradient = pullback(jnp.ones_like(value))[0]
            assert gradient.dtype == z.dtype
            close(gradient, padded(jnp.asarray(expected[1])).at[:, CLASSES:].set(0), eps)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_64_bits(dtype):
    z, t, _, _ = problem((ROWS, CLASSES), dtype=dtype)
    z = z.at[2].set(0).at[2, t[2]].set(20)  # confident and right
    loss = split_loss({"reduction": "none"}, t)
    losses, pullback = jax.vjp(lambda z: loss(z, t, jnp.ones(ROWS)), padded(z))
    expected = reference(z, t, None, None, reduction="none")
    np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
    unit = jnp.finfo(dtype).eps
    np.testing.assert_allclose(np.asarray(pullback(jnp.ones(ROWS))[0][:, :CLASSES], float), expected[1], rtol=unit)


def test_sample_weights_have_a_gradient(x64):
    z, t, w, s = problem((ROWS, CLASSES))
    loss = split_loss({"z_loss": 0.1}, t, w)
    found = jax.grad(loss, 2)(padded(z), t, s)
    close(found, jax.grad(lambda s: cj.cross_entropy(z, t, class_weight=w, sample_weight=s, z_loss=0.1))(s), 1e-12)
    with pytest.raises(TypeError, match="class_weight: expected nothing to be differentiated but logits"):
        jax.grad(lambda w: split_loss({}, t, w)(padded(z), t, s))(w)


def head_loss(options, t, w=None):
    return jax.shard_map(
        lambda h, W, b, s: cj.vocab_parallel_linear_cross_entropy(
            h, W, t, bias=b, num_classes=CLASSES, class_weight=w, sample_weight=s, **options),
        mesh=mesh_of_two(),
        in_specs=(P(), P("model"), P("model"), P()),
        out_specs=P(),
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, OPTIONS[-1]], ids=str)
def test_head(options, x64):
    _, t, w, s = problem((2, 3, CLASSES))
    h, W, b = (
        jax.random.normal(jax.random.key(i), shape, "float64")
        for i, shape in enumerate(((2, 3, WIDTH), (PADDED, WIDTH), (PADDED,)))
    )
    of = {"max_logits_bytes": 2 * PADDED // 2 * 8, **options}  # three chunks
    step = jax.jit(jax.value_and_grad(head_loss(of, t, w), (0, 1, 2))).lower(h, W, b, s).compile()
    text = step.as_text()
    assert text.count(" all-gather(") == 1, "of what is known of rows"
    assert text.count(" all-reduce(") == 1, "of the hidden states' gradient"
    value, gradients = step(h, W, b, s)

    def whole(h, W, b):
        return cj.linear_cross_entropy(h, W[:CLASSES], t, bias=b[:CLASSES], class_weight=w, sample_weight=s, **options)

    expected = jax.value_and_grad(whole, (0, 1, 2))(h, W, b)
    close(value, expected[0], 1e-12)
    for gradient, right in zip(gradients, expected[1], strict=True):
        close(gradient, right, 1e-12)


def test_what_is_sent():
    z, t, _, s = problem((ROWS, CLASSES), dtype="float32")
    for options, numbers in (({}, 5), ({"label_smoothing": 0.1}, 9)):
        loss = split_loss(options, t)
        text = jax.jit(jax.value_and_grad(loss)).lower(padded(z), t, s.astype("float32")).compile().as_text()
        assert text.count(" all-gather(") == 1
        assert "all-reduce" not in text
        assert f"u32[{ROWS},2,{2 * numbers}]" in text


def test_infinities_and_nan(x64):
    z, t, _, _ = problem((ROWS, CLASSES))
    t = t.at[1].set(3)
    bad = ((0, 2, jnp.nan), (1, 12, jnp.inf), (2, 9, -jnp.inf), (3, int(t[3]), -jnp.inf))
    for row, c, value in bad:
        z = z.at[row, c].set(value)
    z = z.at[4].set(-jnp.inf)
    loss = split_loss({"reduction": "none"}, t)
    losses, pullback = jax.vjp(lambda z: loss(z, t, jnp.ones(ROWS)), padded(z))
    expected = reference(z, t, None, None, reduction="none")
    np.testing.assert_allclose(losses, expected[0], rtol=1e-12)
    gradient = pullback(jnp.ones(ROWS))[0][:, :CLASSES]
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-12, atol=1e-15)


def mapped(function, specs, **how):
    return jax.shard_map(function, mesh=mesh_of_two(), in_specs=specs, out_specs=P(), **how)


def test_errors():
    z, t = jnp.zeros((4, 6)), jnp.zeros(4, int)
    split, loss = P(None, "model"), cj.vocab_parallel_cross_entropy
    with pytest.raises(ValueError, match="check_vma=True"):
        mapped(loss, (split, P()), check_vma=False)(z, t)
    with pytest.raises(ValueError, match=r"axis_name: expected a mesh axis of the jax\.shard_map"):
        loss(z, t)
    with pytest.raises(ValueError, match="logits: expected a shard"):
        mapped(loss, (P(), P()))(z, t)
    with pytest.raises(ValueError, match="targets: expected the same on all devices"):
        mapped(lambda z, t: loss(jnp.zeros((2, 3)) + z[:2], t), (split, P("model")))(z, t)
    with pytest.raises(ValueError, match=r"num_classes: expected an integer in \[1, 6\] for 2 shards of 3 c"):
        mapped(partial(loss, num_classes=7), (split, P()))(z, t)
    head = cj.vocab_parallel_linear_cross_entropy
    with pytest.raises(ValueError, match="hidden: expected the same"):
        mapped(head, (P("model"), P("model"), P()))(jnp.zeros((8, 2)), jnp.zeros((6, 2)), t)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"in \[0, 6\) or ignore_index -100, got 6 in row 1"):
        jax.block_until_ready(jax.jit(mapped(loss, (split, P())))(z, t.at[1].set(6)))
