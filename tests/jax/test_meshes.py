"""crossentropy.jax on two devices: each has its own rows, and no logits travel."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax_oracle import OPTIONS, close, problem, reference

import crossentropy.jax as cj

pytestmark = pytest.mark.usefixtures("x64")

ROWS, CLASSES = (4, 6), 5
MOVES = ("all-gather", "all-to-all", "collective-permute")

with jax.enable_x64(True):
    Z, T, CLASS_WEIGHT, S = problem((*ROWS, CLASSES))
    Q, Y = (jax.random.uniform(jax.random.key(i), Z.shape, Z.dtype) for i in range(2))
    HIDDEN, TEACHER = (jax.random.normal(jax.random.key(i), (*ROWS, 3), Z.dtype) for i in (2, 3))
    CLASSIFIER = jax.random.normal(jax.random.key(4), (CLASSES, 3), Z.dtype)
CHUNKS = {"max_logits_bytes": 8 * CLASSES * 8}  # three
of_rows = partial(cj.cross_entropy, reduction="none")

# One number a row; the arrays of rows, which are split, and others.
CASES = {
    "indices": (lambda z, t, s: of_rows(z, t, class_weight=CLASS_WEIGHT, sample_weight=s, z_loss=0.1), (Z, T, S), ()),
    "smoothed": (partial(of_rows, label_smoothing=0.1), (Z, T), ()),
    "composed": (lambda z, t, w: of_rows(z, t, class_weight=w, label_smoothing=0.1), (Z, T), (CLASS_WEIGHT,)),
    "probabilities": (partial(of_rows, softcap=3.0, entropy_bonus=0.1), (Z, Q), ()),
    "half precision": (lambda z, t: of_rows(z.astype("bfloat16"), t), (Z, T), ()),
    "log_prob": (lambda z, t: sum(cj.log_prob(z, t, entropy=True)), (Z, T), ()),
    "kl_divergence": (partial(cj.kl_divergence, reduction="none"), (Z, Y), ()),
    "jensen_shannon": (partial(cj.jensen_shannon, reduction="none"), (Z, Y), ()),
    "binary": (lambda z, q: cj.binary_cross_entropy(z, q, reduction="none").sum(-1), (Z, Q), ()),
    "head": (
        lambda h, t, W: cj.linear_cross_entropy(h, W, t, class_weight=CLASS_WEIGHT, reduction="none", **CHUNKS),
        (HIDDEN, T),
        (CLASSIFIER,),
    ),
    "head's log_prob": (lambda h, t, W: cj.linear_log_prob(h, W, t, **CHUNKS), (HIDDEN, T), (CLASSIFIER,)),
    "head's divergence": (
        lambda h, g, W: cj.linear_kl_divergence(h, W, g, 2 * W, reduction="none", **CHUNKS),
        (HIDDEN, TEACHER),
        (CLASSIFIER,),
    ),
}
MESHES = {
    "auto": (AxisType.Auto, ("b",)),
    "auto, sequences": (AxisType.Auto, ("b", "s")),
    "explicit": (AxisType.Explicit, ("b",)),
    "explicit, sequences": (AxisType.Explicit, ("b", "s")),
    "shard_map": (AxisType.Auto, ("b",)),
}


def mesh_of(name):
    """A mesh of two devices, and how it splits rows: their first axis or, where there are sequences, the second."""
    kind, axes = MESHES[name]
    return jax.make_mesh((1, 2)[-len(axes) :], axes, axis_types=(kind,) * len(axes)), P(*axes)


def placed(mesh, spec, arrays):
    return [jax.device_put(array, NamedSharding(mesh, spec)) for array in arrays]


def compiled(mesh, function, *arguments):
    with jax.set_mesh(mesh):
        return jax.jit(function).lower(*arguments).compile()


@pytest.mark.parametrize(
    ("case", "mesh_name"),
    [(case, mesh) for case in CASES for mesh in MESHES if case == "indices" or mesh not in ("auto", "explicit")],
)
def test_rows_stay_where_they_are(case, mesh_name):
    function, split, whole = CASES[case]
    mesh, spec = mesh_of(mesh_name)
    g = jnp.arange(1.0, 1.0 + S.size).reshape(ROWS)
    wanted = tuple(i for i, array in enumerate((*split, *whole)) if jnp.issubdtype(array.dtype, jnp.floating))

    def on_one(*arguments):
        rows = function(*arguments)
        return (g * rows).sum(), rows

    def on_two(g, *arguments):
        of = function
        if mesh_name == "shard_map":
            specs = (spec,) * len(split) + (P(),) * len(whole)
            of = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=spec)
        rows = of(*arguments)
        return (g * rows).sum(), rows

    expected = jax.jit(jax.value_and_grad(on_one, wanted, has_aux=True))(*split, *whole)
    arguments = placed(mesh, spec, (g, *split)) + placed(mesh, P(), whole)
    step = compiled(mesh, jax.value_and_grad(on_two, tuple(i + 1 for i in wanted), has_aux=True), *arguments)
    assert not [move for move in MOVES if move in step.as_text()]
    (loss, rows), gradients = step(*arguments)
    assert gradients[0].sharding.is_equivalent_to(arguments[1].sharding, gradients[0].ndim)
    close(loss, expected[0][0], 1e-12)
    close(rows, expected[0][1], 1e-12)
    for gradient, right in zip(gradients, expected[1], strict=True):
        close(gradient, right, 1e-12)


@pytest.mark.parametrize("mesh_name", ["auto, sequences", "explicit"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_means_are_of_all_rows(mesh_name, probabilities):
    mesh, spec = mesh_of(mesh_name)
    for dtype, options in (("float64", OPTIONS[3]), ("float32", {})):
        z, t, w, s = problem((*ROWS, CLASSES), probabilities, dtype)
        w = None if probabilities else w
        expected = reference(z, t, w, s, **options)
        arguments = placed(mesh, spec, (z, t, s))
        step = compiled(
            mesh,
            jax.value_and_grad(lambda z, t, s, w=w, options=options: cj.cross_entropy(
                z, t, class_weight=w, sample_weight=s, **options)),
            *arguments,
        )  # fmt: skip
        text = step.as_text()
        assert not [move for move in MOVES if move in text]
        assert "crossentropy_loss" in text
        loss, gradient = step(*arguments)
        assert gradient.sharding.is_equivalent_to(arguments[0].sharding, gradient.ndim)
        close(loss, expected[0], 1e-12 if dtype == "float64" else 2e-7)
        close(gradient, expected[1], 1e-12 if dtype == "float64" else 2e-7)


def test_one_call_on_one_device():
    step = jax.jit(jax.value_and_grad(cj.cross_entropy)).lower(Z, T).compile()
    assert step.as_text().count('custom_call_target="crossentropy_loss"') == 1


@pytest.mark.slow
def test_transformations_of_a_split_batch():
    mesh, _ = mesh_of("auto")
    z, t, w, s = (jnp.stack([array, array[::-1]]) for array in (Z[:, 0], T[:, 0], CLASS_WEIGHT, S[:, 0]))

    def of(z, t, w, s, v):
        loss = partial(cj.cross_entropy, class_weight=w, sample_weight=s)
        return (
            loss(z, t),
            jax.jvp(lambda z: jax.grad(loss)(z, t), (z,), (v,)),
            jax.jvp(lambda z: loss(z, t), (z,), (v,)),
        )

    expected = jax.vmap(of)(z, t, w, s, jnp.ones_like(z))
    arguments = placed(mesh, P(None, "b"), (z, t)) + placed(mesh, P(), (w, s, jnp.ones_like(z)))
    for found, right in zip(
        jax.tree.leaves(compiled(mesh, jax.vmap(of), *arguments)(*arguments)), jax.tree.leaves(expected), strict=True
    ):
        close(found, right, 1e-12)


def test_nothing_counted_on_a_mesh():
    mesh, spec = mesh_of("auto")
    z, t = placed(mesh, spec, (jnp.full((4, 3), jnp.nan), jnp.full(4, -100)))
    loss, gradient = compiled(mesh, jax.value_and_grad(cj.cross_entropy), z, t)(z, t)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_split_classes_are_gathered(kind):
    mesh = jax.make_mesh((2,), ("c",), axis_types=(kind,))
    z = Z[..., :4]
    expected = jax.value_and_grad(cj.cross_entropy)(z, jnp.minimum(T, 3))
    (split,), (t,) = placed(mesh, P(None, None, "c"), (z,)), placed(mesh, P(), (jnp.minimum(T, 3),))
    loss, gradient = compiled(mesh, jax.value_and_grad(cj.cross_entropy), split, t)(split, t)
    close(loss, expected[0], 1e-12)
    close(gradient, expected[1], 1e-12)


BAD_INDEX = """
import sys
import jax, jax.numpy as jnp
from functools import partial
from jax.sharding import NamedSharding, PartitionSpec as P
from crossentropy.jax import cross_entropy, linear_cross_entropy, vocab_parallel_cross_entropy
mesh = jax.make_mesh((2,), ("b",), (jax.sharding.AxisType.Auto,))
put = lambda array: jax.device_put(array, NamedSharding(mesh, P("b")))
z, t, W = put(jnp.zeros((8, 5))), put(jnp.zeros(8, int).at[6].set(9)), jnp.zeros((5, 5))
def local(z, t): return jax.lax.psum(cross_entropy(z, t), "b")
mapped = partial(jax.shard_map, mesh=mesh, in_specs=P("b"), out_specs=P())
for loss in (cross_entropy, lambda z, t: linear_cross_entropy(z, W, t, max_logits_bytes=40), mapped(local)):
    for function in (loss, jax.grad(loss)):
        try:
            jax.block_until_ready(jax.jit(function)(z, t))
        except jax.errors.JaxRuntimeError as error:
            print(str(error).splitlines()[0])
print(jax.jit(mapped(local, check_vma=False))(z, t))
"""


def test_a_bad_index_on_one_device_is_an_error_on_all():
    flags = (
        "--xla_force_host_platform_device_count=2 --xla_cpu_collective_call_warn_stuck_timeout_seconds=2 "
        "--xla_cpu_collective_call_terminate_timeout_seconds=4"
    )
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
        [sys.executable, "-c", BAD_INDEX], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    *errors, last = ran.stdout.splitlines()
    message = "OUT_OF_RANGE: targets: expected class indices in [0, 5) or ignore_index -100, got 9 in row "
    assert errors == [message + "6"] * 4 + [message + "2"] * 2, "in shard_map a row of the device's"
    assert last == "nan"
