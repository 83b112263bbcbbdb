"""The functions of crossentropy.jax: as they are, compiled, transformed, composed as for other devices."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hashed.inputs import DTYPES, REDUCTIONS, Options, Problem, edges, numbers, problems, variants
from hashed.record import Hashes
from other_device import composed_on_the_cpu

import crossentropy as ce
import crossentropy.jax as cj

FEW = ("plain", "all")


def add_cases(hashes: Hashes) -> None:
    for wide in (True, False):
        with jax.enable_x64(wide):
            _losses(hashes, wide)
            _heads(hashes, wide)
    with jax.enable_x64(True):
        _edges(hashes)
        _composed(hashes)
        _optax(hashes)
        _transforms(hashes)
        _errors(hashes)


def _cases(some: Iterable[Problem], names: tuple[str, ...] | None = None) -> Iterator[tuple[str, Problem, Options]]:
    """Problems with options, each with one of the reductions in turn."""
    every = (found for problem in some for found in variants(problem, names))
    for i, (case, problem, given) in enumerate(every):
        if not isinstance(problem.targets, ce.TopKTargets):
            reduction = REDUCTIONS[i % 3]
            yield f"{case}, {reduction}", problem, {"reduction": reduction, **given}


def _with_gradient(loss: Callable[..., Any], *inputs: Any, upstream: Any = 1.0) -> list[Any]:
    """The loss and its gradients by floating-point inputs."""
    wanted = tuple(i for i, x in enumerate(inputs) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating))

    @jax.jit
    def both(*inputs: Any) -> Any:
        def scaled(*inputs: Any) -> Any:
            value = loss(*inputs)
            return (value * upstream).sum(), value

        return jax.value_and_grad(scaled, wanted, has_aux=True)(*inputs)

    (_, value), gradients = both(*inputs)
    return [value, list(gradients)]


def _losses(hashes: Hashes, wide: bool) -> None:
    some = problems(DTYPES if wide else DTYPES[:3], {(37, 10): -1, (3, 193): -1} if wide else {(9, 7): -1})
    for case, (_, z, _, t), given in itertools.islice(_cases(some), None, None, 5):  # each takes time to compile
        loss = partial(cj.cross_entropy, **given)
        z, t = jnp.asarray(z), jnp.asarray(t)
        hashes.add("cross_entropy", f"{case}, x64 {wide}", _with_gradient, loss, z, t, upstream=-1.75)
    for case, (_, z, axis, t), given in _cases(problems(("float32",), {(2, 10, 5): 1, (5,): 0, (0, 3): -1}), FEW):
        loss = partial(cj.cross_entropy, axis=axis, **given)
        hashes.add("cross_entropy", f"{case}, x64 {wide}, alone", loss, z, t)
        hashes.add("cross_entropy", f"{case}, x64 {wide}", _with_gradient, loss, z, t)


def _edges(hashes: Hashes) -> None:
    for case, (_, z, _, t), given in _cases(edges((3, 200)), FEW):
        loss = partial(cj.cross_entropy, **{**given, "reduction": "none"})
        hashes.add("cross_entropy", case, jax.value_and_grad(lambda z, t, loss=loss: loss(z, t).sum()), z, t)


def _composed(hashes: Hashes) -> None:
    with composed_on_the_cpu():
        for case, (_, z, _, t), given in _cases(edges((3,)), FEW):
            loss = partial(cj.cross_entropy, **{**given, "reduction": "none"})
            hashes.add("cross_entropy", f"{case}, composed", _with_gradient, loss, jnp.asarray(z), t)


def _heads(hashes: Hashes, wide: bool) -> None:
    of_all_dtypes = itertools.cycle((("plain",), ("weights of 0",), ("all",)))
    for dtype, names in zip(DTYPES if wide else DTYPES[:3], of_all_dtypes, strict=False):
        h, W, b = (jnp.asarray(numbers(n, s, -1, 1), dtype) for n, s in enumerate(((2, 3, 4), (7, 4), (7,)), 11))
        for case, (_, _, _, t), given in _cases(problems(("float64",), {(2, 3, 7): -1}), names):
            t = jnp.asarray(t)

            def loss(h: Any, W: Any, b: Any, t: Any = t, given: Options = given) -> Any:
                return cj.linear_cross_entropy(h, W, t, bias=b, max_logits_bytes=100, **given)

            label = f"{dtype}, {case}, x64 {wide}"
            hashes.add("linear_cross_entropy", label, _with_gradient, loss, h, W, b, upstream=-1.75)
            whole = partial(cj.linear_cross_entropy, **given)
            hashes.add("linear_cross_entropy", f"{label}, one chunk", whole, h, W, t)


def _optax(hashes: Hashes) -> None:
    z, q = numbers(1, (3, 4, 5), -4.0, 4.0), numbers(5, (3, 4, 5), 0.0, 0.5)
    for axis in (-1, 0, 1, (0, 2), (2, 1), None, 3, (0, 4)):
        name = "softmax_cross_entropy"
        for where in (None, jnp.asarray(q > 0.1)):
            hashes.add(name, f"{axis}, {where is None}", cj.softmax_cross_entropy, z, q, axis, where)
        hashes.add(name, f"{axis}, broadcast", cj.softmax_cross_entropy, z, q[:1], axis)
        name = "softmax_cross_entropy_with_integer_labels"
        if axis is not None and axis not in (3, (0, 4)):
            rows = np.delete(z.shape, np.atleast_1d(axis))
            labels = np.arange(np.prod(rows, dtype=int)).reshape(rows) % 4
            function = cj.softmax_cross_entropy_with_integer_labels
            hashes.add(name, f"{axis}", function, z, labels, axis)
            hashes.add(name, f"{axis}, where", function, z, labels, axis, jnp.asarray(q > 0.1))
            hashes.add(name, f"{axis}, rows", function, z, labels, axis, jnp.asarray(labels != 1))


def _transforms(hashes: Hashes) -> None:
    z, v, zs = (numbers(n, shape, -4.0, 4.0) for n, shape in enumerate(((6, 4), (6, 4), (3, 6, 4)), 14))
    t, ts = np.arange(6) % 4, np.arange(18).reshape(3, 6) % 4
    q, w, s = numbers(5, (6, 4), 0.0, 0.5), numbers(7, (4,), 0.5, 2.0), numbers(8, (6,), 0.5, 2.0)
    of_all = {"z_loss": 0.01, "softcap": 5.0, "temperature": 0.7, "label_smoothing": 0.1}

    def loss(z: Any, t: Any, w: Any = w, s: Any = s) -> Any:
        return cj.cross_entropy(z, t, class_weight=w, sample_weight=s, **of_all)

    def losses(z: Any, t: Any) -> Any:
        return cj.cross_entropy(z, t, reduction="none", z_loss=0.01)

    functions: dict[str, Callable[[], Any]] = {
        "grad of all": lambda: jax.grad(loss, (0, 1, 2, 3))(z, q, w, s),
        "jvp": lambda: jax.jvp(lambda z: loss(z, t), (z,), (v,)),
        "jacrev": lambda: jax.jacrev(losses)(z, t),
        "hessian": lambda: jax.hessian(loss)(z, t),
        "vmap": lambda: jax.vmap(loss)(zs, ts),
        "vmap of logits": lambda: jax.vmap(losses, in_axes=(2, None))(np.moveaxis(zs, 0, 2), t),
        "vmap of targets": lambda: jax.vmap(losses, in_axes=(None, 0))(z, ts),
        "vmap of weights": lambda: jax.vmap(loss, in_axes=(None, None, None, 0))(z, t, w, np.stack([s, 2 * s])),
        "vmap of grad": lambda: jax.vmap(jax.grad(loss))(zs, ts),
        "checkpoint": lambda: jax.grad(jax.checkpoint(lambda z: loss(2 * z, t)))(z),
    }
    for name, function in functions.items():
        hashes.add("cross_entropy", name, lambda f=function: jax.tree.leaves(f()))
        hashes.add("cross_entropy", f"{name}, compiled", lambda f=function: jax.tree.leaves(jax.jit(f)()))
    h, W = numbers(20, (6, 3), -1.0, 1.0), numbers(21, (4, 3), -1.0, 1.0)
    head = partial(cj.linear_cross_entropy, max_logits_bytes=64, **of_all)
    hashes.add("linear_cross_entropy", "hessian", lambda: jax.hessian(head, 1)(h, W, t))
    hashes.add("linear_cross_entropy", "vmap", lambda: jax.vmap(head, (0, None, None))(np.stack([h, -h]), W, t))


def _errors(hashes: Hashes) -> None:
    z, t = jnp.zeros((2, 3)), jnp.array([1, 0])
    wrong: list[tuple[Any, Any, Options]] = [
        *((z, bad, {}) for bad in (jnp.array([3, 0]), jnp.array([0, -1]), jnp.array([0]), t * 1.0, z.astype(complex))),
        *((bad, t, {}) for bad in (z > 1, z.astype(complex), z[:, :0], z[0], 1.0)),
        *((z, t, {"class_weight": jnp.array(w)}) for w in ([1.0, 1], [1.0, -1, 1], [1.0, jnp.inf, 1], [1j, 1, 1])),
        *((z, t, {"sample_weight": jnp.array(s)}) for s in ([1.0], [1.0, -1], [1.0, jnp.nan], [1j, 1])),
        *((z, t, {"label_smoothing": x}) for x in (1.5, -0.1, jnp.nan, "0.1")),
        *((z, t, {"z_loss": x}) for x in (-1.0, jnp.inf, "0.1")),
        *((z, t, {"softcap": x}) for x in (0.0, 1e-101, jnp.nan, True)),
        *((z, t, {"temperature": x}) for x in (0.0, jnp.inf, None)),
        *((z, t, {"ignore_index": x}) for x in (1.5, True)),
        *((z, t, {"reduction": x}) for x in ("average", None)),
        *((z, t, {"axis": x}) for x in (2, -3, 1.5)),
        *((z, t, {"where": jnp.ones(shape, bool)}) for shape in ((3,), (2, 2), (1, 2, 3))),
        (z, t, {"unknown": 1}),
    ]
    for i, (logits, targets, given) in enumerate(wrong):
        hashes.add("cross_entropy", f"wrong {i}", cj.cross_entropy, logits, targets, **given)
        hashes.add("linear_cross_entropy", f"wrong {i}", cj.linear_cross_entropy, logits, jnp.eye(3), targets, **given)
    for i, (W, more) in enumerate(((jnp.eye(2), {}), (jnp.zeros((0, 3)), {}), (jnp.eye(3), {"bias": jnp.ones(2)}))):
        hashes.add("linear_cross_entropy", f"wrong head {i}", cj.linear_cross_entropy, z, W, t, **more)
    for bytes_ in (0, 1.5):
        more = {"max_logits_bytes": bytes_}
        hashes.add("linear_cross_entropy", f"{bytes_} bytes", cj.linear_cross_entropy, z, jnp.eye(3), t, **more)
