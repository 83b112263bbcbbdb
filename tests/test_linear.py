"""The linear head against the plain loss of its logits and the chain rule, in float64."""

import subprocess
import sys
import textwrap
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossentropy as ce
from crossentropy import _head

OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"temperature": 0.7, "z_loss": 0.01},
    {"softcap": 3.0},
    {"reduction": "none", "z_loss": 0.1},
    {"class_weight": True, "sample_weight": True},
    {"class_weight": True, "sample_weight": True, "reduction": "none", "label_smoothing": 0.2},
]


def problem(rng, rows, width, classes, kind="indices"):
    H, W, b = (rng.standard_normal(shape) for shape in ((rows, width), (classes, width), classes))
    if kind == "indices":
        targets = rng.integers(0, classes, rows)
        targets[1::5] = -100
    elif kind == "probabilities":
        targets = rng.random((rows, classes))
    else:
        indices, probabilities = rng.integers(0, classes, (rows, 2)), rng.random((rows, 2))
        ignored = rng.random(rows) < 0.3
        indices[ignored], probabilities[ignored] = -100, 0
        targets = ce.TopKTargets(indices, probabilities)
    return H, W, b, targets


def filled(options, rng, rows, classes):
    """The options with weights in them, as many as there are rows and classes."""
    options = dict(options)
    if options.pop("class_weight", False):
        options["class_weight"] = rng.random(classes)
    if options.pop("sample_weight", False):
        options["sample_weight"] = rng.random(rows) * (rng.random(rows) > 0.3)
    return options


def plain(H, W, b, targets, **options):
    """Whole logits, the plain loss, the chain rule."""
    loss, dz = ce.cross_entropy_with_grad(H @ W.T + (0 if b is None else b), targets, **options)
    return loss, ce.LinearGradients(dz @ W, dz.T @ H, None if b is None else dz.sum(0))


def assert_same(got, expected, rtol=1e-12):
    np.testing.assert_allclose(got[0], expected[0], rtol=rtol)
    for name, ours, theirs in zip(got[1]._fields, got[1], expected[1], strict=True):
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            scale = np.abs(theirs).max(initial=0)
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("kind", ["indices", "probabilities", "top k"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_equals_the_plain_loss_and_its_chain_rule(chunk, options, kind, rng):
    H, W, b, targets = problem(rng, 23, 5, 11, kind)
    options = filled(options, rng, 23, 11)
    more = {"grad_output": rng.standard_normal(23) if options.get("reduction") == "none" else 1.7}
    limit = {"max_logits_bytes": None if chunk is None else chunk * 11 * 8}
    for bias in (b, None):
        got = ce.linear_cross_entropy_with_grad(H, W, targets, bias=bias, **options, **more, **limit)
        assert_same(got, plain(H, W, bias, targets, **options, **more))
        alone = ce.linear_cross_entropy(H, W, targets, bias=bias, **options, **limit)
        np.testing.assert_array_equal(alone, got[0])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 20),
    width=st.integers(1, 9),
    classes=st.integers(1, 300),
    chunk=st.integers(1, 25),
    seed=st.integers(0, 1000),
)
def test_any_shape(rows, width, classes, chunk, seed):
    H, W, b, targets = problem(np.random.default_rng(seed), rows, width, classes)
    got = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, max_logits_bytes=chunk * classes * 8)
    assert_same(got, plain(H, W, b, targets))


@pytest.mark.parametrize(
    "dtypes",
    [
        ("float32", "float32"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
        ("float32", "float64"),
    ],
)
def test_dtypes(dtypes, rng, monkeypatch):
    monkeypatch.setattr(_head, "BLOCK_BYTES", 64 * 40 * 4)
    hidden, classifier = (np.dtype(getattr(ml_dtypes, name, name)) for name in dtypes)
    H, W, b, targets = problem(rng, 60, 40, 700)
    H, W, b = H.astype(hidden), W.astype(classifier), b.astype(classifier)
    # A classifier of several blocks, chunks of rows that are none of everything.
    limit = {"max_logits_bytes": 16 * 700 * 4}
    loss, gradients = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, **limit)
    wide = [x.astype(float) for x in (H, W, b)]
    exact, exact_gradients = plain(*wide, targets)
    assert loss == pytest.approx(exact, rel=1e-6)
    # As far from the exact gradients as whole float32 products are, and rounded once.
    narrow_gradients = plain(*(x.astype(np.float32) for x in (H, W, b)), targets)[1]
    for array, gradient, narrow, right in zip((H, W, b), gradients, narrow_gradients, exact_gradients, strict=True):
        assert gradient.dtype == array.dtype
        info = ml_dtypes.finfo(array.dtype)
        atol = 2 * np.abs(narrow - right).max() + float(info.smallest_subnormal)
        np.testing.assert_allclose(gradient.astype(float), right, rtol=float(info.eps), atol=atol)
    losses = ce.linear_cross_entropy(H, W, targets, bias=b, reduction="none", **limit)
    assert losses.dtype == (np.float64 if "float64" in dtypes else np.float32)


def test_half_precision_adds_up_in_float32(rng):
    # The classifier's gradient over many chunks: rounded after each, it would be off by many of bfloat16's 8 bits.
    H, W, _, targets = problem(rng, 512, 8, 30)
    H, W = np.abs(H).astype(ml_dtypes.bfloat16), W.astype(ml_dtypes.bfloat16)
    gradients = ce.linear_cross_entropy_with_grad(H, W, targets, max_logits_bytes=1)[1]
    right = plain(H.astype(float), W.astype(float), None, targets)[1]
    np.testing.assert_allclose(gradients.classifier.astype(float), right.classifier, rtol=2.0**-8, atol=1e-6)


def test_hidden_states_of_any_shape_and_layout(rng):
    H, W, b, targets = problem(rng, 24, 6, 9)
    loss, gradients = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b)
    for hidden, classifier in (
        (H.reshape(2, 3, 4, 6), W),
        (np.asfortranarray(H), np.asfortranarray(W)),
        (H.astype(">f8"), W.astype(">f8")),
    ):
        t = targets.reshape(hidden.shape[:-1])
        got = ce.linear_cross_entropy_with_grad(hidden, classifier, t, bias=b)
        assert got[1].hidden.shape == hidden.shape
        assert got[1].hidden.dtype == H.dtype
        assert_same((got[0], got[1]._replace(hidden=got[1].hidden.reshape(H.shape))), (loss, gradients))
    one = ce.linear_cross_entropy_with_grad(H[0], W, targets[0], bias=b, reduction="none")
    assert np.ndim(one[0]) == 0
    assert one[1].hidden.shape == (6,)


def test_rows_that_do_not_count_are_not_looked_at(rng):
    H, W, b, targets = problem(rng, 40, 6, 9)
    H[targets == -100] = np.nan
    loss, gradients = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, max_logits_bytes=500)
    kept = targets != -100
    assert_same((loss, gradients._replace(hidden=gradients.hidden[kept])), plain(H[kept], W, b, targets[kept]))
    assert (gradients.hidden[~kept] == 0).all()
    for nothing in (np.full(40, -100), np.zeros((40, 9))):
        weight = np.zeros(40)
        loss, gradients = ce.linear_cross_entropy_with_grad(H, W, nothing, bias=b, sample_weight=weight)
        assert loss == 0.0
        assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("kind", ["indices", "probabilities", "top k"])
def test_rows_of_weight_0_and_rows_that_sparse_targets_leave_out_may_hold_nan(rng, kind):
    H, W, b, indices = problem(rng, 40, 6, 9)
    indices = np.abs(indices) % 9
    weight = rng.uniform(0.5, 2.0, 40)
    weight[[3, 17, 39]] = 0.0
    kept = weight > 0
    given = {"indices": indices, "probabilities": rng.dirichlet(np.ones(9), 40)}.get(kind)
    few = given
    if kind == "top k":
        sparse = np.stack([indices, (indices + 1) % 9], -1)
        q = np.full((40, 2), 0.5)
        sparse[5], q[5], kept[5] = -100, 0.0, False
        given, few = ce.TopKTargets(sparse, q), ce.TopKTargets(sparse[kept], q[kept])
    else:
        few = given[kept]
    expected = ce.linear_cross_entropy_with_grad(H[kept], W, few, bias=b, sample_weight=weight[kept])
    H[~kept] = np.nan
    loss, gradients = ce.linear_cross_entropy_with_grad(H, W, given, bias=b, sample_weight=weight, max_logits_bytes=500)
    assert_same((loss, gradients._replace(hidden=gradients.hidden[kept])), expected)
    assert (gradients.hidden[~kept] == 0).all()


def test_wrt_and_out(rng):
    H, W, b, targets = problem(rng, 20, 6, 9)
    before = [x.copy() for x in (H, W, b)]
    every = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, max_logits_bytes=500)[1]
    for name in every._fields:
        alone = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, wrt=[name], max_logits_bytes=500)[1]
        assert [field for field, g in alone._asdict().items() if g is not None] == [name]
        np.testing.assert_array_equal(getattr(alone, name), getattr(every, name))
    out = ce.LinearGradients(np.full_like(H, np.nan), None, np.full_like(b, np.nan))
    got = ce.linear_cross_entropy_with_grad(H, W, targets, bias=b, out=out, max_logits_bytes=500)[1]
    assert got.hidden is out.hidden
    assert got.bias is out.bias
    for ours, right in zip(got, every, strict=True):
        np.testing.assert_array_equal(ours, right)
    for array, copy in zip((H, W, b), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_module(rng):
    H, W, b, targets = problem(rng, 20, 6, 9)
    for options in ({}, {"reduction": "none", "label_smoothing": 0.1}):
        criterion = ce.LinearCrossEntropyLoss(**options, max_logits_bytes=500)
        with pytest.raises(RuntimeError, match="call forward"):
            criterion.backward()
        weight = rng.random(20)
        upstream = rng.standard_normal(20) if options else 3.0
        loss = criterion(H, W, targets, b, sample_weight=weight)
        right = plain(H, W, b, targets, sample_weight=weight, grad_output=upstream, **options)
        assert_same((loss, criterion.backward(upstream)), right)
        assert_same((loss, criterion.backward(upstream)), right)
    half = ce.LinearCrossEntropyLoss()
    half(H.astype(np.float16), W.astype(np.float16), targets)
    scaled = half.backward(2.0**15).hidden.astype(float) / 2.0**15
    exact = plain(H.astype(np.float16).astype(float), W.astype(np.float16).astype(float), None, targets)[1].hidden
    np.testing.assert_allclose(scaled, exact, rtol=2e-3, atol=1e-6)


def test_errors(rng):
    H, W, b, targets = problem(rng, 4, 3, 5)
    targets = np.array([0, 1, 2, 3])
    raises = pytest.raises
    with raises(ValueError, match=r"classifier: expected shape \(C, 3\) .* got \(5, 2\)"):
        ce.linear_cross_entropy(H, W[:, :2], targets)
    with raises(ValueError, match=r"at least one class, got \(0, 3\)"):
        ce.linear_cross_entropy(H, W[:0], targets)
    with raises(ValueError, match=r"bias: expected shape \(5,\), got \(4,\)"):
        ce.linear_cross_entropy(H, W, targets, bias=b[:4])
    with raises(ValueError, match="hidden: expected at least one axis"):
        ce.linear_cross_entropy(1.0, W, targets)
    with raises(TypeError, match="hidden: expected float16"):
        ce.linear_cross_entropy(H.astype(complex), W, targets)
    with raises(ValueError, match=r"targets: expected class indices .* shape \(4,\) .* got shape \(3,\)"):
        ce.linear_cross_entropy(H, W, targets[:3])
    with raises(ValueError, match="max_logits_bytes: expected at least 1, got 0"):
        ce.linear_cross_entropy(H, W, targets, max_logits_bytes=0)
    with raises(TypeError, match="max_logits_bytes: expected an integer or None, got 1.5"):
        ce.linear_cross_entropy(H, W, targets, max_logits_bytes=1.5)
    with raises(ValueError, match="wrt: expected some of"):
        ce.linear_cross_entropy_with_grad(H, W, targets, wrt="hidden")
    out = ce.LinearGradients(hidden=np.full_like(H, 7.0))
    with raises(IndexError, match=r"expected class indices in \[0, 5\) or ignore_index -100, got 5 in row 3"):
        ce.linear_cross_entropy_with_grad(H, W, [0, 1, 2, 5], out=out)
    with raises(ValueError, match="num_threads: expected at least 1, got 0"):
        ce.linear_cross_entropy_with_grad(H, W, [0, 1, 2, -100], out=out, num_threads=0)
    assert (out.hidden == 7.0).all()
    for wrong, words in (
        (ce.LinearGradients(hidden=H), "memory of its own"),
        (ce.LinearGradients(hidden=np.empty((3, 4)).T), "C-contiguous"),
        (ce.LinearGradients(classifier=np.empty((5, 3), np.float32)), "expected shape"),
    ):
        with raises(ValueError, match=words):
            ce.linear_cross_entropy_with_grad(H, W, targets, out=wrong)
    with raises(ValueError, match="whose gradient is not asked for"):
        ce.linear_cross_entropy_with_grad(H, W, targets, wrt=["bias"], out=out)
    with raises(TypeError, match="out: expected LinearGradients"):
        ce.linear_cross_entropy_with_grad(H, W, targets, out=H)


def test_probabilities_of_chosen_rows_are_within_the_limit(rng):
    # Rows of weight 0 among them: those of a chunk are copied together, beside its logits.
    H, W, _, _ = problem(rng, 2000, 4, 500)
    H, W, q = H.astype(np.float32), W.astype(np.float32), rng.random((2000, 500), dtype=np.float32)
    weight = np.arange(2000) % 2
    tracemalloc.start()
    try:
        ce.linear_cross_entropy_with_grad(H, W, q, sample_weight=weight, max_logits_bytes=1_000_000)
        assert 500_000 < tracemalloc.get_traced_memory()[1] < 1_300_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which other systems do not enforce")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_is_bounded(dtype):
    # Whole logits would take 2.1 GB, and as much again their gradient.
    script = f"""
        import resource
        import numpy as np
        import crossentropy as ce
        N, D, C = 4096, 16, 128256
        rng = np.random.default_rng(0)
        H = rng.standard_normal((N, D), dtype=np.float32).astype("{dtype}")
        W = rng.standard_normal((C, D), dtype=np.float32).astype("{dtype}")
        t = rng.integers(0, C, N)
        ce.linear_cross_entropy_with_grad(H[:8], W, t[:8])  # what the BLAS keeps for itself
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        gradients = H.nbytes + W.nbytes + (4 * C * D if W.itemsize == 2 else 0)
        resource.setrlimit(resource.RLIMIT_AS, (used + gradients + (90 << 20),) * 2)
        loss, gradients = ce.linear_cross_entropy_with_grad(H, W, t)
        assert 10 < loss < 30, loss
        try:
            H @ W.T
        except MemoryError:
            print("bounded")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "bounded\n", done.stderr
