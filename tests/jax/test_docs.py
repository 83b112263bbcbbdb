"""The page on JAX and the docstrings of crossentropy.jax do what they say."""

import framework_docs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import crossentropy.jax as cj


def test_docstrings():
    assert framework_docs.failed_examples(cj) == 0


def test_the_example_trains():
    assert framework_docs.run_code("jax.md")["right"] > 0.9


TABLES = [row for number in (1, 2) for row in framework_docs.rows_of_migration("jax.md", number)]


@pytest.mark.parametrize(("theirs", "ours"), TABLES)
def test_migration(theirs, ours, x64):
    rng = np.random.default_rng(0)
    names = {"jax": jax, "optax": optax, "cj": cj, "labels": jnp.asarray(rng.integers(0, 10, 6))}
    names["jnp"] = jnp
    shapes = {"logits": (6, 10), "hidden": (6, 3), "classifier": (10, 3), "probabilities": (6, 10)}
    shapes |= {"scores": (6, 4), "yes": (6, 4)}
    shapes |= {"teacher": (6, 10), "teacher_hidden": (6, 4), "teacher_classifier": (10, 4)}
    names |= {name: jnp.asarray(rng.random(shape)) for name, shape in shapes.items()}
    names["mask"] = jnp.asarray(rng.random(6) > 0.4)
    np.testing.assert_allclose(eval(ours, names), eval(theirs, names), rtol=1e-9)


def test_the_beginning():
    names = {"jax": jax, "logits": jnp.ones((6, 5)), "labels": jnp.arange(6) % 5}
    names |= {"hidden": jnp.ones((6, 3)), "classifier": jnp.ones((5, 3))}
    assert framework_docs.run_beginning("jax.md", names)["dhidden"].shape == (6, 3)
