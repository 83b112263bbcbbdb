"""Every option of the loss in every signature of crossentropy.jax, and on its way to the loss."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from signatures import Differs, differences, expected_options, report, takes

import crossentropy.jax as cj


def on_a_mesh(function, specs, *arguments, **options):
    mesh = jax.make_mesh((1,), ("model",), (AxisType.Auto,))
    return jax.jit(jax.shard_map(partial(function, **options), mesh=mesh, in_specs=specs, out_specs=P()))(*arguments)


Z, T = jnp.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), jnp.array([1, 0])
CALLS = {
    "cross_entropy": partial(cj.cross_entropy, Z, T),
    "binary_cross_entropy": partial(cj.binary_cross_entropy, T, T),
    "linear_cross_entropy": partial(cj.linear_cross_entropy, Z, jnp.eye(3), T),
    "log_prob": partial(cj.log_prob, Z, T),
    "linear_log_prob": partial(cj.linear_log_prob, Z, jnp.eye(3), T),
    "kl_divergence": partial(cj.kl_divergence, Z, Z),
    "jensen_shannon": partial(cj.jensen_shannon, Z, Z),
    "linear_kl_divergence": partial(cj.linear_kl_divergence, Z, jnp.eye(3), Z, jnp.eye(3)),
    "linear_jensen_shannon": partial(cj.linear_jensen_shannon, Z, jnp.eye(3), Z, jnp.eye(3)),
    "vocab_parallel_cross_entropy": partial(on_a_mesh, cj.vocab_parallel_cross_entropy, (P(None, "model"), P()), Z, T),
    "vocab_parallel_linear_cross_entropy": partial(
        on_a_mesh, cj.vocab_parallel_linear_cross_entropy, (P(), P("model"), P()), Z, jnp.eye(3), T
    ),
}
OF_LOSS = ("label_smoothing", "z_loss", "entropy_bonus", "focal_gamma")
LOG_PROB = Differs("it has one number for each index and no loss", without=(*OF_LOSS, "reduction"))
DIVERGENCE = Differs("it compares two models and has no targets", without=("ignore_index", *OF_LOSS))
DIFFERENT = {
    "log_prob": LOG_PROB,
    "linear_log_prob": LOG_PROB,
    "kl_divergence": DIVERGENCE,
    "jensen_shannon": DIVERGENCE,
    "linear_kl_divergence": DIVERGENCE,
    "linear_jensen_shannon": DIVERGENCE,
    "binary_cross_entropy": Differs(
        "its logits are log-odds, of which none is ignored",
        without=("ignore_index", "z_loss", "entropy_bonus", "softcap", "temperature"),
    ),
}


def test_every_public_function_that_takes_options_is_compared():
    assert {name for name in cj.__all__ if takes(getattr(cj, name))} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_signature(name):
    found = differences(name, getattr(cj, name), DIFFERENT.get(name))
    assert not found, report(found)


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option.name) for name in CALLS for option in expected_options(DIFFERENT.get(name))],
)
def test_option_reaches_the_loss(name, option):
    """Nonsense that no body forwards would pass silently."""
    CALLS[name]()
    with pytest.raises((TypeError, ValueError), match=f"^{option}: expected"):
        CALLS[name](**{option: "nonsense"})
