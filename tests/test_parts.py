"""Rows whose classes are split into parts, as the core joins them, against the definition and against whole rows."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import crossentropy as ce
from crossentropy import _core
from crossentropy._arrays import row_type
from crossentropy._call import prepare
from crossentropy._options import loss_options

CUTS = ([0, 40], [0, 7, 7, 300, 4300], [0, 0, 1, 4200, 4300], [0, 1000, 5000, 9001])
OPTIONS = (
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-3},
    {"temperature": 0.7},
    {"softcap": 5.0},
    {"entropy_bonus": 0.2},
    {"focal_gamma": 2.0},
    {"label_smoothing": 0.2, "temperature": 1.3, "z_loss": 1e-2},
    {"softcap": 3.0, "entropy_bonus": -0.1, "label_smoothing": 0.3},
)
TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3}


def part(options, z, targets, first, end, class_weight=None, sample_weight=None):
    """A call that has the classes [first, end)."""
    if first < end:
        dense = np.ndim(targets) == 2
        weight = None if class_weight is None else class_weight[first:end]
        t = targets[:, first:end] if dense else targets
        return prepare(options, z[:, first:end].copy(), t, class_weight=weight, sample_weight=sample_weight)
    call = prepare(options, z, targets, class_weight=class_weight, sample_weight=sample_weight)
    none = SimpleNamespace(rows=len(z), classes=0, class_stride=1, data=None, type=call.logits.type)
    return call._replace(logits=none)


def joined(cuts, z, targets, *, entropy=False, grad_output=None, class_weight=None, sample_weight=None, **options):
    """What each part returns: losses, gradient and entropies."""
    loss_of = loss_options(reduction="none", **options)
    bounds = list(pairwise(cuts))
    calls = [part(loss_of, z, targets, *bound, class_weight, sample_weight) for bound in bounds]
    parts = np.full((len(calls), len(z), _core.part_fields), np.nan)
    for call, out, (first, _) in zip(calls, parts, bounds, strict=True):
        _core.part_of_rows(call, classes=cuts[-1], first_class=first, entropy=entropy, out=out)
    for call, (first, end) in zip(calls, bounds, strict=True):
        whole = np.empty(parts.shape[1:])
        _core.join_parts(call, entropy=entropy, parts=parts, count=len(calls), out=whole)
        losses = np.empty(len(z), row_type(z.dtype))
        entropies = np.empty_like(losses) if entropy else None
        gradient = np.empty((len(z), end - first), z.dtype)
        _core.loss_of_part(
            call,
            classes=cuts[-1],
            first_class=first,
            entropy=entropy,
            whole=whole,
            losses=losses,
            entropies=entropies,
            dlogits=gradient,
            grad_output=grad_output,
        )
        yield losses, gradient, entropies


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_parts_are_the_whole(cuts, dtype, options, weighted, dense, rng):
    if dense and options.get("focal_gamma"):
        return  # which is of one class
    rows, classes = 6, cuts[-1]
    z = (4 * rng.standard_normal((rows, classes))).astype(dtype)
    z[1, 5] = 60  # a confident row
    z[2, [0, classes - 1]] = 50  # its maximum twice
    z[3, 4] = -np.inf
    targets = np.array([classes - 1, 5, 0, -100, 7, 39])
    if dense:
        targets = rng.random((rows, classes))
        targets[3, 4] = 0
        targets /= targets.sum(1, keepdims=True)
    weights = {}
    if weighted:
        weights["class_weight"] = rng.random(classes) + 0.5
        weights["sample_weight"] = np.array([1.0, 2.0, 0.5, 1.0, 0.0, -1.0])
    g = rng.standard_normal(rows)
    loss, dz = ce.reference.cross_entropy_with_grad(z, targets, reduction="none", grad_output=g, **weights, **options)
    found = list(joined(cuts, z, targets, grad_output=g, **weights, **options))
    size = np.abs(g[:, None]) * (1 + np.abs(targets if dense else 1))
    for losses, _, _ in found:
        np.testing.assert_array_equal(losses, found[0][0])  # the same bits
        np.testing.assert_allclose(losses, loss, rtol=1e-12 if dtype == "float64" else 1e-6, atol=1e-45)
    gradient = np.concatenate([of_part[1] for of_part in found], 1)
    np.testing.assert_allclose(gradient / size, dz / size, rtol=10 * TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if not dense:  # a confident row keeps its digits
        np.testing.assert_allclose(gradient[1], dz[1], rtol=1e-2 if dtype == "float16" else 1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_in_any_part_reaches_every_part(dtype, bad, rng):
    cuts = [0, 3, 3, 10, 20]
    for at in (0, 5, 19):
        z = rng.standard_normal((2, 20)).astype(dtype)
        z[0, at] = bad
        for losses, gradient, entropies in joined(cuts, z, np.array([1, 2]), entropy=True):
            assert np.isnan(losses[0])
            assert np.isnan(entropies[0])
            assert np.isnan(gradient[0]).all()
            assert np.isfinite(losses[1])
            assert np.isfinite(gradient[1]).all()


def test_infinite_logits(rng):
    z = rng.standard_normal((3, 12))
    z[0, 4:8] = -np.inf  # all that one part has
    z[1, 4] = -np.inf  # the target's
    z[2] = -np.inf
    t = np.array([0, 4, 0])
    loss, dz = ce.cross_entropy_with_grad(z, t, reduction="none")
    found = list(joined([0, 4, 8, 12], z, t))
    for losses, _, _ in found:
        np.testing.assert_allclose(losses, loss, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate([g for _, g, _ in found], 1), dz, rtol=1e-13)


@pytest.mark.parametrize("softcap", [None, 4.0])
def test_entropies(softcap, rng):
    z = 3 * rng.standard_normal((5, 700))
    t = rng.integers(0, 700, 5)
    for losses, _, entropies in joined([0, 100, 350, 350, 700], z, t, entropy=True, softcap=softcap):
        log_p, entropy = ce.log_prob_and_entropy(z, t, softcap=softcap)
        np.testing.assert_allclose(-losses, log_p, rtol=1e-13)
        np.testing.assert_allclose(entropies, entropy, rtol=1e-13)


def test_weights_beyond_float32_in_one_part(rng):
    z = rng.standard_normal((4, 30)).astype(np.float32)
    w = np.full(30, 1.5)
    w[25] = 1e20
    t = np.array([1, 11, 29, 25])
    loss, _ = ce.reference.cross_entropy_with_grad(z, t, class_weight=w, label_smoothing=0.1, reduction="none")
    for losses, _, _ in joined([0, 10, 10, 20, 30], z, t, class_weight=w, label_smoothing=0.1):
        np.testing.assert_allclose(losses, loss, rtol=1e-6)


def test_order_of_joining_changes_no_more_than_rounding_and_a_maximum_drops_nothing(rng):
    z = rng.standard_normal((4, 64)).astype(np.float32) * 20
    t = rng.integers(0, 64, 4)
    whole = ce.cross_entropy(z, t, reduction="none")
    for cuts in ([0, 64], [0, 1, 64], list(range(65))):
        for losses, _, _ in joined(cuts, z, t):
            np.testing.assert_array_max_ulp(losses, whole, 1)


def test_index_beyond_all_classes(rng):
    z = rng.standard_normal((2, 8))
    with pytest.raises(IndexError, match=r"expected class indices in \[0, 8\) or ignore_index -100, got 8 in row 1"):
        list(joined([0, 4, 8], z, np.array([5, 8])))
