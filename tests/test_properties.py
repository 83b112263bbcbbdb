"""What holds for every input: Hypothesis looks for one where it does not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import crossentropy as ce

settings.register_profile("crossentropy", deadline=None, max_examples=150)
settings.load_profile("crossentropy")


@st.composite
def batches(draw, dtypes=(np.float32, np.float64)):
    dtype = draw(st.sampled_from(dtypes))
    rows, classes = draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 3, 10, 33, 97, 200]))
    width = 32 if dtype == np.float32 else 64
    elements = st.floats(-60, 60, width=width, allow_subnormal=False)
    z = draw(hnp.arrays(dtype, (rows, classes), elements=elements))
    t = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return z, t


@given(batches(), st.integers(-(2**10), 2**10))
def test_shift_by_a_constant(batch, shift):
    """Bitwise where every sum is exact: multiples of 1/16 far below 2^20."""
    z, t = np.round(batch[0] * 16) / 16, batch[1]
    assert ce.cross_entropy(z + z.dtype.type(shift), t) == ce.cross_entropy(z, t)


@given(batches(), st.randoms(use_true_random=False))
def test_permutation_of_classes(batch, random):
    """Sums run in another order: within 4 units of rounding."""
    z, t = batch
    order = np.array(random.sample(range(z.shape[1]), z.shape[1]))
    inverse = np.argsort(order)
    losses, dlogits = ce.cross_entropy_with_grad(z, t, reduction="none")
    again, dagain = ce.cross_entropy_with_grad(z[:, order], inverse[t], reduction="none")
    eps = np.finfo(z.dtype).eps
    np.testing.assert_allclose(again, losses, rtol=4 * eps)
    np.testing.assert_allclose(dagain[:, inverse], dlogits, rtol=8 * eps, atol=4 * eps)


@given(batches(), st.randoms(use_true_random=False))
def test_permutation_of_rows(batch, random):
    """Bitwise: a row does not see its neighbours."""
    z, t = batch
    order = np.array(random.sample(range(len(z)), len(z)))
    losses, dlogits = ce.cross_entropy_with_grad(z, t, reduction="none")
    again, dagain = ce.cross_entropy_with_grad(z[order], t[order], reduction="none")
    assert again.tobytes() == losses[order].tobytes()
    assert dagain.tobytes() == dlogits[order].tobytes()


@given(batches())
def test_index_is_one_hot(batch):
    """The same definition by another path: within 4 units of rounding, confident rows included."""
    z, t = batch
    one_hot = np.eye(z.shape[1], dtype=int)[t]
    losses, dlogits = ce.cross_entropy_with_grad(z, t, reduction="none")
    again, dagain = ce.cross_entropy_with_grad(z, one_hot, reduction="none")
    eps = np.finfo(z.dtype).eps
    np.testing.assert_allclose(again, losses, rtol=4 * eps)
    np.testing.assert_allclose(dagain, dlogits, rtol=4 * eps, atol=2 * eps)
    every = np.arange(len(z))
    np.testing.assert_allclose(dagain[every, t], dlogits[every, t], rtol=8 * eps)


@given(batches(), st.data())
def test_ignoring_a_row_is_deleting_it(batch, data):
    """Row by row bitwise; the mean within the rounding of a sum in another order."""
    z, t = batch
    ignored = data.draw(hnp.arrays(bool, len(z)))
    losses, dlogits = ce.cross_entropy_with_grad(z, np.where(ignored, -100, t), reduction="none")
    kept, dkept = ce.cross_entropy_with_grad(z[~ignored], t[~ignored], reduction="none")
    assert losses[~ignored].tobytes() == kept.tobytes()
    assert dlogits[~ignored].tobytes() == dkept.tobytes()
    assert not losses[ignored].any()
    assert not dlogits[ignored].any()
    mean = ce.cross_entropy(z[~ignored], t[~ignored])
    np.testing.assert_allclose(ce.cross_entropy(z, np.where(ignored, -100, t)), mean, rtol=1e-14)


@given(batches(), st.data())
def test_mean_times_total_weight_is_sum(batch, data):
    """One division, one product: within 1e-15 of itself."""
    z, t = batch
    weights = st.floats(0, 8, width=32)
    w = data.draw(hnp.arrays(np.float64, z.shape[1], elements=weights))
    s = data.draw(hnp.arrays(np.float64, len(z), elements=weights))
    for targets, total in ((t, float(np.sum(s * w[t]))), (np.eye(z.shape[1])[t], float(np.sum(s)))):
        mean = ce.cross_entropy(z, targets, class_weight=w, sample_weight=s)
        summed = ce.cross_entropy(z, targets, class_weight=w, sample_weight=s, reduction="sum")
        np.testing.assert_allclose(mean * total, summed if total else 0.0, rtol=1e-13)


@given(batches())
def test_the_definition(batch):
    z, t = batch
    loss, dlogits = ce.cross_entropy_with_grad(z, t)
    exact, dexact = ce.reference.cross_entropy_with_grad(z, t)
    eps = np.finfo(z.dtype).eps
    np.testing.assert_allclose(loss, exact, rtol=4 * eps)
    np.testing.assert_allclose(dlogits, dexact, rtol=4 * eps, atol=4 * eps / len(z))
