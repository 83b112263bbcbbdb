"""The linear head of crossentropy.jax."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jax_oracle import OPTIONS, problem

import crossentropy.jax as cj
from crossentropy import _head

pytestmark = pytest.mark.usefixtures("x64")


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


@pytest.mark.slow
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


def test_head_gradients_where_nothing_counts_are_zero():
    h, W, t = jnp.ones((4, 3)), jnp.ones((5, 3)), jnp.zeros(4, int)
    for options in ({"sample_weight": jnp.zeros(4)}, {"class_weight": jnp.array([0.0, 1.0, 1.0, 1.0, 1.0])}):
        loss, gradients = jax.value_and_grad(partial(cj.linear_cross_entropy, **options), (0, 1))(h, W, t)
        assert loss == 0
        assert not any(gradient.any() for gradient in gradients)


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
