"""Logits that the gradient overwrites: donated ones, and those that a compiled function makes itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_oracle import OPTIONS, gradient, problem

from crossentropy.jax import cross_entropy

overwriting = partial(cross_entropy, overwrite_logits=True)


def step(function, donated):
    return jax.jit(lambda z, t: jax.value_and_grad(function)(z, t), donate_argnums=0 if donated else ())


def temporary(function, *arguments):
    """The bytes that a compiled function allocates beside arguments and results."""
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("axis", [-1, 0])
def test_the_gradient_of_donated_logits_has_their_memory(axis):
    z, t, _, _ = problem((1000, 300), dtype="float32", axis=axis)
    loss, dlogits = step(partial(cross_entropy, axis=axis), donated=False)(z, t)
    donating = step(partial(overwriting, axis=axis), donated=True)
    assert temporary(donating, z, t) < z.nbytes / 10, "no copy"
    address = z.unsafe_buffer_pointer()
    found, gradient = donating(z, t)
    assert z.is_deleted()
    assert gradient.unsafe_buffer_pointer() == address
    assert found == loss
    assert jnp.array_equal(gradient, dlogits)


def test_logits_that_a_function_makes_itself():
    h, W = (jax.random.normal(jax.random.key(i), (n, 8)) for i, n in enumerate((1000, 300)))
    t = jnp.arange(1000) % 300

    def gradients(loss):
        return jax.jit(jax.grad(lambda h, W: loss(h @ W.T, t), (0, 1)))

    logits = 4 * 1000 * 300
    assert temporary(gradients(overwriting), h, W) < 1.5 * logits < temporary(gradients(cross_entropy), h, W)
    for found, expected in zip(gradients(overwriting)(h, W), gradients(cross_entropy)(h, W), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("loss", [cross_entropy, overwriting], ids=["plain", "overwriting"])
def test_logits_that_are_needed_stay(loss):
    z, t, _, _ = problem((50, 30), dtype="float32")
    kept = np.array(z)
    expected = jax.grad(cross_entropy)(kept, t)
    np.testing.assert_array_equal(jax.grad(loss)(z, t), expected)  # not compiled
    np.testing.assert_array_equal(step(loss, donated=False)(z, t)[1], expected)  # not donated
    assert np.array_equal(z, kept)
    used_after = jax.jit(lambda z: (jax.grad(loss)(z, t), z.argmax(-1), 2 * z), donate_argnums=0)
    for found, right in zip(used_after(z), (expected, kept.argmax(-1), 2 * kept), strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("path", ["core", "composed"])
def test_values_and_transformations_are_the_same(path, request, x64):
    if path == "composed":
        request.getfixturevalue("composed")
    z, t, w, s = problem((3, 6, 5))

    def of(loss):
        mean = partial(loss, class_weight=w, **OPTIONS[-1])
        rows = partial(mean, reduction="none")
        return (
            jax.vmap(jax.value_and_grad(lambda z, t, s: mean(z, t, sample_weight=s)))(z, t, s),
            jax.jvp(lambda z: jax.grad(mean)(z, t[0]), (z[0],), (z[1],)),
            gradient(lambda z: rows(z, t), z),
        )

    expected, found = (jax.jit(of, static_argnums=0)(loss) for loss in (cross_entropy, overwriting))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), found, expected)


def test_half_precision_is_read_twice_and_not_overwritten():
    z, t, _, _ = problem((50, 30), dtype="bfloat16")
    donating = step(overwriting, donated=True)
    assert "output_to_operand_aliasing" not in donating.lower(z, t).compile().as_text()
    expected = jax.grad(cross_entropy)(z, t)
    np.testing.assert_array_equal(donating(z, t)[1], expected)
