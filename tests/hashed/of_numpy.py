"""The functions of crossentropy on all of the inputs."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hashed.inputs import (
    DTYPES,
    KINDS,
    REDUCTIONS,
    SHAPES,
    WRONG,
    A,
    Options,
    Problem,
    cases,
    dtype_of,
    edges,
    further_problems,
    integers,
    laid_out,
    numbers,
    problems,
    targets,
)
from hashed.record import Hashes

import crossentropy as ce
from crossentropy import _scoring
from crossentropy._options import LossOptions


def add_cases(hashes: Hashes) -> None:
    wide = ("plain", "capped", "weights of 0", "all")
    everything = itertools.chain(
        cases(problems()), cases(further_problems()), cases(edges()), cases(edges((9001,)), wide)
    )
    for case, (_, z, axis, t), given in everything:
        hashes.add("cross_entropy", case, ce.cross_entropy, z, t, axis=axis, **given)
        hashes.add("cross_entropy_with_grad", case, ce.cross_entropy_with_grad, z, t, axis=axis, **given)
    for case, problem, given in itertools.chain(cases(problems()), cases(edges())):
        _, z, axis, t = problem
        rows, _ = problem.sizes()
        g = numbers(9, rows, -2.0, 2.0) if given["reduction"] == "none" else -1.75
        arguments = {"axis": axis, "grad_output": g, **given}
        hashes.add("cross_entropy_with_grad", f"{case}, grad_output", ce.cross_entropy_with_grad, z, t, **arguments)
        hashes.add("cross_entropy_with_grad", f"{case}, out", _into, z, t, **arguments)
    for case, (_, z, axis, t), given in cases(edges()):
        for g in (0.0, np.inf, np.nan, 1e60, 1e-60):
            arguments = {"axis": axis, "grad_output": g, **given}
            hashes.add("cross_entropy_with_grad", f"{case}, times {g}", ce.cross_entropy_with_grad, z, t, **arguments)
    _derivatives(hashes)
    _softmaxes(hashes)
    _heads(hashes)
    _modules(hashes)
    _explanations(hashes)
    _numpy_errors(hashes)
    _scores(hashes)
    few = {shape: SHAPES[shape] for shape in ((37, 10), (3, 193), (0, 3))}
    for case, (_, z, _, t), given in itertools.chain(cases(problems(("float64",), few)), cases(edges((3,)))):
        if not isinstance(t, ce.TopKTargets):
            hashes.add("reference.cross_entropy_with_grad", case, ce.reference.cross_entropy_with_grad, z, t, **given)


def _into(z: np.ndarray, t: Any, **given: Any) -> tuple[Any, ...]:
    """Into an array, and in place."""
    out = np.full(z.shape, 7, z.dtype)
    loss, dlogits = ce.cross_entropy_with_grad(z, t, out=out, **given)
    same = z.copy()
    again, _ = ce.cross_entropy_with_grad(same, t, out=same, **given)
    return loss, out, dlogits is out, again, same


def _derivatives(hashes: Hashes) -> None:
    shapes = {shape: SHAPES[shape] for shape in ((37, 10), (3, 193), (2, 10, 5), (5,), (0, 3))}
    for case, (_, z, axis, t), given in itertools.chain(cases(problems(shapes=shapes)), cases(edges())):
        v = numbers(10, z.shape, -1.0, 1.0)
        hashes.add("cross_entropy_hvp", case, ce.cross_entropy_hvp, z, t, v, axis=axis, **given)
        hashes.add("cross_entropy_hessian_diagonal", case, ce.cross_entropy_hessian_diagonal, z, t, axis=axis, **given)
        without = {name: value for name, value in given.items() if name not in ("ignore_index", "z_loss")}
        hashes.add("cross_entropy_dtargets", case, ce.cross_entropy_dtargets, z, t, axis=axis, **without)


def _softmaxes(hashes: Hashes) -> None:
    for name, z, axis, _ in itertools.chain(problems(), further_problems(), edges()):
        v = numbers(10, np.shape(z), -1.0, 1.0)
        for function in ("softmax", "log_softmax", "logsumexp"):
            hashes.add(function, name, getattr(ce, function), z, axis=axis)
        hashes.add("logsumexp", f"{name}, keepdims", ce.logsumexp, z, axis=axis, keepdims=True)
        for function in ("softmax_vjp", "softmax_jvp"):
            hashes.add(function, name, getattr(ce, function), z, v, axis=axis)
        if np.shape(z)[-1] < 300:
            hashes.add("softmax_jacobian", name, ce.softmax_jacobian, z)
    for i, (z, _, _) in enumerate(WRONG[:8]):
        for function in ("softmax", "log_softmax", "logsumexp", "softmax_jacobian"):
            hashes.add(function, f"wrong {i}", getattr(ce, function), z)
        for function in ("softmax_vjp", "softmax_jvp"):
            hashes.add(function, f"wrong {i}", getattr(ce, function), z, z)
            hashes.add(function, f"wrong vector {i}", getattr(ce, function), A, z)


def _head_problems() -> Iterator[tuple[str, tuple[Any, ...], Options]]:
    """Hidden states, classifier and targets."""
    for (rows, width, classes), dtype in itertools.product(
        (((9,), 4, 5), ((2, 3), 16, 200), ((), 3, 4), ((0,), 3, 4)), (*DTYPES, "mixed")
    ):
        h = numbers(11, (*rows, width), -1.0, 1.0).astype(dtype_of("float32" if dtype == "mixed" else dtype))
        W = numbers(12, (classes, width), -1.0, 1.0).astype(dtype_of("bfloat16" if dtype == "mixed" else dtype))
        b = numbers(13, (classes,), -1.0, 1.0).astype(W.dtype)
        for kind in KINDS:
            t = targets(kind, (*rows, classes), len(rows))
            problem = Problem(
                f"{rows} of {width}, {classes} classes, {dtype}, {kind}", np.empty((*rows, classes)), -1, t
            )
            for case, variant, given in cases([problem]):
                yield case, (h, W, variant.targets), given
            for name, more in {
                "bias": {"bias": b, "z_loss": 1e-3},
                "chunks": {"bias": b, "max_logits_bytes": 2 * classes * h.itemsize, "label_smoothing": 0.1},
                "a row at a time": {"max_logits_bytes": 1, "softcap": 5.0},
            }.items():
                for reduction in REDUCTIONS:
                    yield f"{problem.name}, {name}, {reduction}", (h, W, t), {"reduction": reduction, **more}


def _heads(hashes: Hashes) -> None:
    both = ("linear_cross_entropy", "linear_cross_entropy_with_grad")
    for case, (h, W, t), given in _head_problems():
        hashes.add(both[0], case, ce.linear_cross_entropy, h, W, t, **given)
        g = numbers(9, h.shape[:-1], -2.0, 2.0) if given["reduction"] == "none" else -1.75
        for name, more in {"": {}, ", times": {"grad_output": g}, ", bias alone": {"wrt": ["bias"]}}.items():
            hashes.add(both[1], case + name, ce.linear_cross_entropy_with_grad, h, W, t, **given, **more)
        out = ce.LinearGradients(np.full_like(h, 7), np.full_like(W, 7))
        hashes.add(both[1], f"{case}, out", ce.linear_cross_entropy_with_grad, h, W, t, **given, out=out)
        hashes.add("LinearGradients", case, tuple, out)
    for i, (_, t, given) in enumerate(WRONG):
        for name in both:
            hashes.add(name, f"wrong {i}", getattr(ce, name), A, np.eye(3), t, **given)
    nan, two = np.where(np.eye(3) > 0, np.nan, 1.0), np.eye(3)[:, :2]
    wrong: list[tuple[tuple[Any, ...], Options]] = [
        *(((h, W, [0, 1]), {}) for h, W in ((A, two), (A, np.eye(3)[:0]), (3.0, two), (A > 1, two), (A, A[0]))),
        *(((A, nan, [0, 1]), {"bias": b}) for b in ([1, 2], [[1, 2, 3]], [1j, 0, 0], [np.nan] * 3)),
        *(((A, nan, [0, 1]), {"max_logits_bytes": n}) for n in (0, -1, 1.5, "many")),
    ]
    of_gradients: list[Options] = [
        *({"wrt": wrt} for wrt in (["logits"], "hidden", [], ["hidden", "hidden"])),
        *({"out": out} for out in (A, ce.LinearGradients(A), ce.LinearGradients(A.T.copy()))),
        *({"grad_output": g} for g in ([1.0, 2.0], np.inf, np.nan, 1j)),
    ]
    for name in both:
        for i, (args, given) in enumerate(wrong):
            hashes.add(name, f"wrong head {i}", getattr(ce, name), *args, **given)
    for i, given in enumerate(of_gradients):
        hashes.add(both[1], f"wrong gradient {i}", ce.linear_cross_entropy_with_grad, A, np.eye(3), [0, 1], **given)


def _modules(hashes: Hashes) -> None:
    def backward(call: Callable[[], Any], name: str) -> Any:
        """What a method returns, or how it refuses."""
        try:
            return call()
        except (RuntimeError, TypeError, ValueError) as error:
            return type(error).__name__, str(error), name

    def whole(z: Any, t: Any, axis: int, sample_weight: Any = None, **given: Any) -> list[Any]:
        module = ce.CrossEntropyLoss(axis=axis, **given)
        found = [backward(module.backward, "too early"), module(z, t, sample_weight)]
        g = numbers(9, np.shape(found[1]), -2.0, 2.0) if given["reduction"] == "none" else -1.75
        found += [module.backward(), backward(lambda: module.backward(g), "times"), module.backward(0.0)]
        return [*found, module.backward(np.inf), module.softmax, backward(lambda: module.backward([1.0] * 99), "shape")]

    def changed(z: np.ndarray, t: Any, axis: int, sample_weight: Any = None, **given: Any) -> list[Any]:
        module, z = ce.CrossEntropyLoss(axis=axis, **given), z.copy()
        loss = module.forward(z, t, sample_weight)
        z.flat[:1] = 3
        return [loss, backward(module.backward, "backward"), backward(lambda: module.softmax, "softmax")]

    shapes = {shape: SHAPES[shape] for shape in ((37, 10), (3, 193), (2, 10, 5), (5,), (0, 3))}
    for case, (_, z, axis, t), given in itertools.chain(cases(problems(shapes=shapes)), cases(edges())):
        hashes.add("CrossEntropyLoss", case, whole, z, t, axis, **given)
        hashes.add("CrossEntropyLoss", f"{case}, changed", changed, z, t, axis, **given)

    def head(h: Any, W: Any, t: Any, bias: Any = None, sample_weight: Any = None, **given: Any) -> list[Any]:
        module = ce.LinearCrossEntropyLoss(**given)
        found = [backward(module.backward, "too early"), module(h, W, t, bias, sample_weight)]
        g = numbers(9, np.shape(found[1]), -2.0, 2.0) if given["reduction"] == "none" else -1.75
        return [*found, module.backward(), backward(lambda: module.backward(g), "times")]

    for case, data, given in _head_problems():
        hashes.add("LinearCrossEntropyLoss", case, head, *data, **given)


def _explanations(hashes: Hashes) -> None:
    def forms(*args: Any, **given: Any) -> list[Any]:
        x = ce.explain(*args, **given)
        lesson = x.lesson(derivation=True, check=True, pitfalls=True)
        derived = [x.derivation().to_dict(), x.check().to_dict(), [str(p.to_dict()) for p in x.pitfalls()]]
        return [x.to_dict(), str(lesson), lesson.to_tex(), lesson._repr_html_(), x.to_tex(), str(x), repr(x), *derived]

    few = dict.fromkeys(((4, 3), (2, 50), (5,)), -1)
    for case, (_, z, _, t), given in cases(itertools.chain(problems(("float32", "float64"), few), edges((3,)))):
        hashes.add("explain", case, lambda *args, **given: ce.explain(*args, **given).to_dict(), z, t, **given)
    for case, (_, z, _, t), given in cases(problems(("float64",), few), ("plain", "weights of 0", "all")):
        hashes.add("Explanation", case, forms, z, t, **given)
    for case, (_, z, _, t), given in cases(edges((3,)), ("all",)):
        hashes.add(
            "Explanation", case, forms, z[::3], t[::3], **{**given, "sample_weight": given["sample_weight"][::3]}
        )
    hashes.add("Explanation", "names", forms, A, [1, 0], ["cat", "dog", "bi\trd"])
    wrong: list[tuple[Any, ...]] = [
        *((A, [1, 0], names) for names in ("cat", ["cat"], [1, 2, 3])),
        *((A, [3, 1]), (ce.softmax(A), [1, 0]), (np.zeros((33, 3)), [0] * 33), (np.zeros((0, 3)), [])),
    ]
    for i, args in enumerate(wrong):
        hashes.add("explain", f"wrong rows {i}", lambda *args: str(ce.explain(*args)), *args)


def _numpy_errors(hashes: Hashes) -> None:
    def module(z: Any, t: Any, sample_weight: Any = None, **given: Any) -> Any:
        return ce.CrossEntropyLoss(**given)(z, t, sample_weight)

    def head(z: Any, t: Any, sample_weight: Any = None, **given: Any) -> Any:
        return ce.LinearCrossEntropyLoss(**given)(z, np.eye(3), t, None, sample_weight)

    for i, (z, t, given) in enumerate(WRONG):
        for name in (
            "cross_entropy",
            "cross_entropy_with_grad",
            "cross_entropy_hessian_diagonal",
            "cross_entropy_dtargets",
        ):
            hashes.add(name, f"wrong {i}", getattr(ce, name), z, t, **given)
        hashes.add("cross_entropy_hvp", f"wrong {i}", ce.cross_entropy_hvp, z, t, A, **given)
        hashes.add("explain", f"wrong {i}", lambda *args, **given: str(ce.explain(*args, **given)), z, t, **given)
        hashes.add("CrossEntropyLoss", f"wrong {i}", module, z, t, **given)
        hashes.add("LinearCrossEntropyLoss", f"wrong {i}", head, z, t, **given)
    for i, v in enumerate((A[0], A.astype(complex), A.T)):
        hashes.add("cross_entropy_hvp", f"wrong vector {i}", ce.cross_entropy_hvp, A, [1, 0], v)
    hashes.add("cross_entropy_dtargets", "indices", ce.cross_entropy_dtargets, A, [1, 0])
    once = np.array(A)
    outs = (A[:1].copy(), A.astype(np.float32), A.astype(">f8"), A.tolist(), laid_out("read-only", A), once[::-1])
    for i, out in enumerate(outs):
        hashes.add("cross_entropy_with_grad", f"wrong out {i}", ce.cross_entropy_with_grad, once, [1, 0], out=out)
    for i, g in enumerate(([1.0, 2.0], [1.0, 2.0, 3.0], 1j, None)):
        for reduction in ("mean", "none"):
            more = {"grad_output": g, "reduction": reduction}
            hashes.add(
                "cross_entropy_with_grad", f"wrong {i}, {reduction}", ce.cross_entropy_with_grad, A, [1, 0], **more
            )


def _scores(hashes: Hashes) -> None:
    """What `crossentropy eval` computes, of every dtype that a file may have."""
    for dtype in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<i8", ">i4", "|u1"):
        z = np.abs(numbers(3, (37, 10), -9.0, 9.0)).astype(dtype)
        t = (integers(4, (37,)) % 10).astype(np.int64)
        for reduction in ("mean", "sum"):
            for smoothing in (0.0, 0.1):
                options = LossOptions(label_smoothing=smoothing, reduction=reduction)
                hashes.add("eval", f"{dtype} {reduction} {smoothing}", _scored, z, t, options)


def _scored(z, t, options):
    losses, dlogits = np.zeros(z.shape[:-1]), np.zeros(z.shape)
    score = _scoring.score(z, t, options, losses_out=losses, dlogits_out=dlogits)
    return losses, dlogits, repr(score)
