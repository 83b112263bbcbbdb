"""scipy's own tests of logsumexp, softmax and log_softmax, run on ours.

scipy's functions reduce over any axes, None being all of them; `over_axes` brings them to the one axis that ours take.
"""

import warnings

import numpy as np
import pytest

import crossentropy as ce

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the marks of its array-API machinery are not registered here
    from scipy._lib.array_api_compat import numpy as xp  # NumPy with the functions that 1.26 lacks
    from scipy.special.tests import test_logsumexp as theirs

# What ours do not do, each with its reason. A name stands for the test, or for its cases that contain the second word.
WEIGHTS = "`b` and `return_sign`: sums of signed weights are not part of a softmax"
COMPLEX = "complex numbers have no softmax here: TypeError"
EXCLUDED = {
    ("test_logsumexp_b", ""): WEIGHTS,
    ("test_logsumexp_sign", ""): WEIGHTS,
    ("test_logsumexp_sign_zero", ""): WEIGHTS,
    ("test_logsumexp_sign_shape", ""): WEIGHTS,
    ("test_logsumexp_shape", ""): WEIGHTS,
    ("test_logsumexp_b_zero", ""): WEIGHTS,
    ("test_logsumexp_b_shape", ""): WEIGHTS,
    ("test_dtypes_ab", ""): WEIGHTS,
    ("test_gh22903", ""): WEIGHTS,
    ("test_gh23548", ""): WEIGHTS,
    ("test_no_writeback", ""): WEIGHTS + "; see test_softmax.py for the same without them",
    ("test_device", ""): WEIGHTS,
    ("test_logsumexp_complex_sign", ""): COMPLEX,
    ("test_gh21610", ""): COMPLEX,
    ("test_gh21709_small_imaginary", ""): COMPLEX,
    ("test_dtypes_a", "complex"): COMPLEX,
    ("test_gh22601_infinite_elements", "j"): COMPLEX,
    ("test_wrap_radians", ""): "a helper for complex numbers",
}


def reason_to_exclude(name, case):
    return next((why for (test, part), why in EXCLUDED.items() if test == name and part in case), None)


def over_axes(function, x, axis, keeps_shape):
    """Apply a function of one axis, the last, to the axes given."""
    x = np.asarray(x)
    axes = range(x.ndim) if axis is None else (axis,) if np.isscalar(axis) else axis
    axes = tuple(a % x.ndim for a in axes)
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(x, axes, last)
    result = function(moved.reshape(*moved.shape[: x.ndim - len(axes)], -1))
    return np.moveaxis(result.reshape(moved.shape), last, axes)[()] if keeps_shape else result


def logsumexp(a, axis=None, keepdims=False):
    if np.size(a) == 0:  # no classes: ours raise ValueError, theirs return -inf
        with pytest.raises(ValueError, match="at least one class"):
            ce.logsumexp(a)
        return np.float64(-np.inf)
    result = over_axes(ce.logsumexp, a, axis, keeps_shape=False)
    return np.expand_dims(result, axis) if keepdims else result


def softmax(x, axis=None):
    return over_axes(ce.softmax, x, axis, keeps_shape=True)


def log_softmax(x, axis=None):
    return over_axes(ce.log_softmax, x, axis, keeps_shape=True)


def cases():
    """Every test of theirs with every combination of its parameters."""
    for group in (theirs, theirs.TestLogSumExp, theirs.TestSoftmax, theirs.TestLogSoftmax):
        owner = group() if isinstance(group, type) else group
        for name in sorted(vars(group)):
            if not name.startswith("test_"):
                continue
            marks = getattr(getattr(group, name), "pytestmark", [])
            parameters = [{}]
            for mark in marks:
                if mark.name == "parametrize":
                    names = (
                        mark.args[0] if not isinstance(mark.args[0], str) else mark.args[0].replace(" ", "").split(",")
                    )
                    values = [v if len(names) > 1 else (v,) for v in mark.args[1]]
                    parameters = [{**p, **dict(zip(names, v, strict=True))} for p in parameters for v in values]
            for given in parameters:
                case = "-".join(str(value) for value in given.values())
                yield pytest.param(getattr(owner, name), name, case, given, id=f"{name}[{case}]")


CASES = list(cases())


@pytest.fixture
def ours(monkeypatch):
    for function in (logsumexp, softmax, log_softmax):
        monkeypatch.setattr(theirs, function.__name__, function)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of their own references
@pytest.mark.parametrize(
    ("test", "name", "case", "given"), [c for c in CASES if reason_to_exclude(*c.values[1:3]) is None]
)
@pytest.mark.usefixtures("ours")
def test_as_scipy_does(test, name, case, given):
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    test(**given, **({"xp": xp} if "xp" in wanted else {}))


def test_what_is_run_and_what_is_not():
    """Every exclusion still names something, and the rest is what it was when this was written."""
    names = {(c.values[1], c.values[2]) for c in CASES}
    for test, part in EXCLUDED:
        assert any(test == name and part in case for name, case in names), test
    assert sum(reason_to_exclude(*c.values[1:3]) is None for c in CASES) == 30
