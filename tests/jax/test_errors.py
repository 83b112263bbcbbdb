"""What crossentropy.jax refuses, of arguments that are known and in functions that are traced."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossentropy as ce
import crossentropy.jax as cj

pytestmark = pytest.mark.usefixtures("x64")


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
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"class_weight": jnp.array([1, 2, -math.inf])}, "class_w.*finite"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"sample_weight": jnp.array([1, math.nan])}, "sample_weight: exp"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"label_smoothing": 2.0}, "label_smoothing: expected"),
        (ValueError, (jnp.zeros((2, 3)), [0, 1]), {"reduction": "average"}, "reduction: expected"),
    ],
)
def test_errors(error, args, options, message):
    with pytest.raises(error, match=message):
        cj.cross_entropy(args[0], jnp.asarray(args[1]), **options)


def test_sparse_targets():
    with pytest.raises(TypeError, match=r"targets: expected class indices .*, got TopKTargets"):
        cj.cross_entropy(jnp.zeros((2, 3)), ce.TopKTargets([[0], [1]], [[1.0], [1.0]]))


def test_bad_weights_in_a_traced_function():
    loss = jax.jit(lambda s: cj.cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 1]), sample_weight=s))
    with pytest.raises(jax.errors.JaxRuntimeError, match="sample_weight: expected finite weights, each 0 or of a "):
        jax.block_until_ready(loss(jnp.array([1.0, -math.inf])))
