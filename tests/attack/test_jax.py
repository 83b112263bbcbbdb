"""What JAX narrows, and memory refused under XLA."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossentropy as ce
import crossentropy.jax as cj

Z = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
H, W = np.ones((3, 2), np.float32), np.ones((5, 2), np.float32)
LOSSES = pytest.mark.parametrize(
    "loss",
    [
        lambda t, **options: cj.cross_entropy(Z, t, **options),
        lambda t, **options: jax.grad(cj.cross_entropy)(Z, t, **options),
        lambda t, **options: cj.linear_cross_entropy(H, W, t, **options),
    ],
    ids=["loss", "gradient", "head"],
)


@LOSSES
@pytest.mark.parametrize("index", [2**32, 2**32 - 100, 2**31, -(2**32), 2**63 - 1])
def test_indices_that_32_bits_would_wrap(loss, index):
    assert not jax.config.jax_enable_x64
    for targets in (np.array([0, 1, index]), [0, 1, index], (0, np.int64(1), index)):
        with pytest.raises(IndexError, match=rf"targets: expected class indices in \[0, 5\).*, got {index} in row 2"):
            loss(targets)


@LOSSES
@pytest.mark.parametrize("index", [2**64 - 100, 2**63, 2**32])
def test_unsigned_indices(loss, index):
    with pytest.raises(IndexError, match=f"got {index} in row 1"):
        loss(np.array([0, index, 1], np.uint64))


@LOSSES
def test_an_ignored_index_that_32_bits_do_not_hold(loss):
    with pytest.raises(ValueError, match=r"targets: expected values that int32 holds.* got 4294967296"):
        loss(np.array([0, 1, 2**32]), ignore_index=2**32)
    loss(np.array([0, 1, 2]), ignore_index=2**32)


def test_with_64_bits():
    with jax.enable_x64(True):
        z = Z.astype(np.float64)
        expected = ce.reference.cross_entropy_with_grad(z, np.array([0, 1, 2**32]), ignore_index=2**32)[0]
        assert cj.cross_entropy(z, np.array([0, 1, 2**32]), ignore_index=2**32) == pytest.approx(expected, rel=1e-14)
        with pytest.raises(IndexError, match="got 4294967296 in row 2"):
            cj.cross_entropy(z, np.array([0, 1, 2**32]))


@pytest.mark.parametrize("value", [1e-60, 1e60, 1e101, -1e101, 1e-320, -np.inf, np.inf, np.nan])
@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_weights_out_of_range(name, value):
    weights = np.ones(5 if name == "class_weight" else 3)
    weights[1] = value
    with pytest.raises(ValueError, match=f"{name}: expected"):
        cj.cross_entropy(Z, np.array([0, 1, 2]), **{name: weights})


def test_weights_out_of_range_in_a_compiled_function():
    with jax.enable_x64(True):
        loss = jax.jit(lambda s: cj.cross_entropy(Z, np.array([0, 1, 2]), sample_weight=s))
        assert loss(np.array([1e-100, 0.0, 1e100])) > 0
        assert loss(np.array([-1e-100, 0.0, -1e100])) > 0
        for value in (1e101, 1e-101, -1e101):  # JAX makes either of it
            with pytest.raises(
                (jax.errors.JaxRuntimeError, ValueError), match=rf"sample_weight: .*{re.escape(f'{value:g}')}"
            ):
                loss(np.array([1.0, value, 1.0]))


def test_shapes_and_axes_that_do_not_fit():
    for where in (np.ones(2, bool), np.ones((2, 1), bool)):
        with pytest.raises(ValueError, match=r"where: expected shape \(3, 5\) or \(3,\), got|broadcast"):
            cj.cross_entropy(Z, np.array([0, 1, 2]), where=where)
    for axis in (1.0, None, True):
        with pytest.raises(TypeError, match="axis: expected an integer"):
            cj.cross_entropy(Z, np.array([0, 1, 2]), axis=axis)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.complex64])
def test_dtypes_that_the_core_does_not_know(dtype):
    with pytest.raises(TypeError, match="targets: expected probabilities of a real or boolean dtype, got"):
        cj.cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3), dtype))
    if dtype is jnp.complex64:
        for name in ("class_weight", "sample_weight"):
            with pytest.raises(TypeError, match=f"{name}: expected real numbers"):
                jax.jit(lambda s, name=name: cj.cross_entropy(Z[:, :3], np.array([0, 1, 2]), **{name: s}))(
                    jnp.ones(3, dtype)
                )


@pytest.mark.parametrize("scale", [1e-39, 1e-44])
def test_subnormal_weights(scale):
    """XLA's threads flush them to 0."""
    s, t = np.full(3, scale, np.float32), np.array([0, 1, 2])
    expected, gradient = ce.reference.cross_entropy_with_grad(Z, t)
    loss, dlogits = jax.value_and_grad(cj.cross_entropy)(Z, t, sample_weight=s)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(dlogits, gradient, rtol=1e-5, atol=1e-8)


def test_no_hidden_states():
    assert cj.linear_cross_entropy(jnp.zeros((0, 3)), jnp.zeros((5, 3)), jnp.zeros(0, int)) == 0


def test_masked_targets():
    with pytest.raises(TypeError, match="targets: expected a dense array without a mask"):
        cj.cross_entropy(Z, np.ma.masked_array([0, 1, 2], [True, False, False]))


def test_traced_values_in_a_list():
    @jax.jit
    def loss(index):
        return cj.cross_entropy(Z, [0, index, 2])

    expected = ce.reference.cross_entropy_with_grad(Z, [0, 4, 2])[0]
    assert loss(4) == pytest.approx(expected, rel=1e-6)


ATTRIBUTES = {
    "ignore_index": np.int64(-100),
    "label_smoothing": np.float64(0.0),
    "z_loss": np.float64(0.0),
    "entropy_bonus": np.float64(0.0),
    "focal_gamma": np.float64(0.0),
    "softcap": np.float64(np.inf),
    "temperature": np.float64(1.0),
    "reduction": "mean",
    "axes": np.int64(2),
    "axis": np.int64(1),
    "num_threads": np.int64(1),
    "by_rows": False,
    "weighted": False,
    "marks_bad_rows": False,
}


def called_by_xla(**attributes):
    none = np.zeros(0, np.float32)
    result = jax.ShapeDtypeStruct((), np.float32)
    call = jax.ffi.ffi_call("crossentropy_loss", [result])
    return call(Z, np.array([0, 1, 2], np.int32), none, none, none, **attributes)[0]


def test_call_by_xla():
    assert called_by_xla(**ATTRIBUTES) == cj.cross_entropy(Z, np.array([0, 1, 2]))
    assert called_by_xla(**ATTRIBUTES | {"ignore_index": False}) == cj.cross_entropy(Z, np.array([0, 1, 2]))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_xla_does_not_pass(name):
    others = {other: value for other, value in ATTRIBUTES.items() if other != name}
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"attribute: {name}"):
        called_by_xla(**others)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_another_type(name):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"attribute.*: {name}"):
        called_by_xla(**ATTRIBUTES | {name: np.float32(3.0)})


def test_hidden_states_of_width_0():
    loss = cj.linear_cross_entropy(jnp.zeros((3, 0)), jnp.zeros((5, 0)), jnp.array([0, 1, 2]))
    assert loss == pytest.approx(np.log(5), rel=1e-6)


def test_memory_is_refused(alone):
    script = """
import resource
import jax, numpy as np
import crossentropy as ce
import crossentropy.jax as cj
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
z, t = jax.numpy.asarray(rng.standard_normal((32_768, 128))), jax.numpy.asarray(rng.integers(0, 32_768, 128))
loss = jax.jit(lambda z, t: cj.cross_entropy(z, t, axis=0, softcap=30.0, label_smoothing=0.1)).lower(z, t).compile()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used, -1))
try:
    print(loss(z, t).item())
except (MemoryError, jax.errors.JaxRuntimeError) as error:
    assert "memory" in str(error), error
    print("refused")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(loss(z, t).item() == ce.cross_entropy(np.asarray(z), np.asarray(t), axis=0, softcap=30.0, label_smoothing=0.1))
"""
    assert (
        alone(script, CROSSENTROPY_NUM_THREADS="4", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")
        == "refused\nTrue"
    )
