"""The family around the loss in mpmath, one row at a time: values and gradients in each input."""

import mpmath as mp
import torch

mp.mp.dps = 100


def log_softmax(z, temperature=1.0, softcap=None):
    u = [mp.mpf(x) for x in z.tolist()]
    if softcap is not None:
        u = [x if mp.isinf(x) else softcap * mp.tanh(x / softcap) for x in u]
    u = [x / mp.mpf(temperature) for x in u]
    m = max(u)
    total = mp.log(mp.fsum(mp.exp(x - m) for x in u))
    return [x - m - total for x in u]


def _mean(p, x):
    """The mean of x under p, where 0 times infinity is 0."""
    return mp.fsum(a * b for a, b in zip(p, x, strict=True) if a)


def entropy(z, temperature=1.0):
    """The entropy, its gradient, and the size that errors of that are measured by."""
    a = log_softmax(z, temperature)
    p = [mp.exp(x) for x in a]
    h = -_mean(p, a)
    below = [max(a) - x for x in a]
    mean = _mean(p, below)
    scale = [x * max(y, mean) / mp.mpf(temperature) if x else mp.mpf(0) for x, y in zip(p, below, strict=True)]
    return h, [-x * (y + h) / mp.mpf(temperature) if x else mp.mpf(0) for x, y in zip(p, a, strict=True)], scale


def divergence(z, w, kind, temperature=1.0, softcap=None, teacher_softcap=None):
    """The divergence and its gradients in u, and the size that their errors are measured by; without a cap in z too."""
    a, b = log_softmax(z, temperature, softcap), log_softmax(w, temperature, teacher_softcap)
    p, q = [mp.exp(x) for x in a], [mp.exp(x) for x in b]
    delta = [x - y for x, y in zip(a, b, strict=True)]
    if kind == "forward":
        value = -_mean(q, delta)
        student = [x - y for x, y in zip(p, q, strict=True)]
        teacher = [y * (-d - value) for y, d in zip(q, delta, strict=True)]
    elif kind == "reverse":
        value = _mean(p, delta)
        student = [x * (d - value) for x, d in zip(p, delta, strict=True)]
        teacher = [y - x for x, y in zip(p, q, strict=True)]
    else:
        beta = mp.mpf(kind)
        m = [beta * y + (1 - beta) * x for x, y in zip(p, q, strict=True)]
        of_p, of_q = ([mp.log(x / y) for x, y in zip(m, of, strict=True)] for of in (p, q))
        value = -beta * _mean(q, of_q) - (1 - beta) * _mean(p, of_p)
        student = [(1 - beta) * x * (_mean(p, of_p) - y) for x, y in zip(p, of_p, strict=True)]
        teacher = [beta * x * (_mean(q, of_q) - y) for x, y in zip(q, of_q, strict=True)]
    t = mp.mpf(temperature)
    size = max(mp.sqrt(2 * abs(value)), mp.mpf(0))
    scale = [max(x, y) * max(abs(d), size) / t for x, y, d in zip(p, q, delta, strict=True)]
    return value, [x / t for x in student], [x / t for x in teacher], scale


def worst(actual, expected, scale=None):
    """The largest error of a tensor, relative to the values expected or to a scale, in units of its precision."""
    scale = [abs(x) for x in expected] if scale is None else scale
    given = zip(actual.flatten().tolist(), expected, scale, strict=True)
    errors = [float(abs(mp.mpf(x) - y) / size) for x, y, size in given if size > 0]
    return max(errors) / torch.finfo(actual.dtype).eps
