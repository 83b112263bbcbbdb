"""The same bits whatever the threads, the neighbours, the alignment, the instruction set, and what is asked for."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce
from crossentropy import _core

# A tile of rows side by side, the longest of them, one row at a time, several blocks of a row.
WIDTHS = (1, 10, 192, 193, 1000, 9001)
OPTIONS = (
    {},
    {"label_smoothing": 0.1, "z_loss": 1e-3},
    {"softcap": 5.0, "temperature": 0.7},
    {"class_weight": True, "sample_weight": True},
)


def examples(dtype):
    rng = np.random.default_rng(5)
    for classes in WIDTHS:
        rows = max(7, 3_000_000 // classes // (1 + classes // 100)) if classes < 1000 else 900_000 // classes
        z = (3 * rng.standard_normal((rows, classes))).astype(dtype)
        index = rng.integers(0, classes, rows)
        index[::5] = -100
        for targets in (index, rng.random((rows, classes)).astype(np.float32)):
            for options in OPTIONS:
                given = dict(options)
                if "class_weight" in given:
                    given["class_weight"], given["sample_weight"] = rng.random(classes), rng.random(rows)
                yield z, targets, given


def outcome(z, targets, options, **more):
    loss, dlogits = ce.cross_entropy_with_grad(z, targets, **options, **more)
    return np.asarray(loss).tobytes(), dlogits.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_number_of_threads(dtype, reduction):
    for z, targets, options in examples(dtype):
        expected = outcome(z, targets, options, reduction=reduction, num_threads=1)
        for threads in (2, 3, 7):
            assert outcome(z, targets, options, reduction=reduction, num_threads=threads) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_alone_and_with_gradient(dtype):
    for z, targets, options in examples(dtype):
        for reduction in ("mean", "none"):
            alone = np.asarray(ce.cross_entropy(z, targets, reduction=reduction, **options)).tobytes()
            assert alone == outcome(z, targets, options, reduction=reduction)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_alone_and_in_a_batch(dtype):
    for z, targets, options in examples(dtype):
        losses, dlogits = ce.cross_entropy_with_grad(z, targets, reduction="none", **options)
        for row in (0, 1, 5, 6, len(z) - 1):
            given = dict(options)
            if "sample_weight" in given:
                given["sample_weight"] = given["sample_weight"][row : row + 1]
            one, done = ce.cross_entropy_with_grad(z[row : row + 1], targets[row : row + 1], reduction="none", **given)
            assert (one.tobytes(), done.tobytes()) == (losses[row : row + 1].tobytes(), dlogits[row].tobytes())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_alignment_of_elements(dtype):
    size = np.dtype(dtype).itemsize
    for z, targets, options in examples(dtype):
        rows = min(len(z), 50)
        z, targets = z[:rows], targets[:rows]
        options = {k: v[:rows] if k == "sample_weight" else v for k, v in options.items()}
        expected = outcome(z, targets, options)
        for offset in (1, 3, 7):
            buffer = np.empty(2 * z.nbytes + 128, np.uint8)
            start = -buffer.ctypes.data % 64 + offset * size
            here = buffer[start : start + z.nbytes].view(dtype).reshape(z.shape)
            out = buffer[start + z.nbytes :][: z.nbytes].view(dtype).reshape(z.shape)
            here[:] = z
            assert outcome(here, targets, options, out=out) == expected


def digest() -> str:
    hashes = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for z, targets, options in examples(dtype):
            for part in outcome(
                z[:200], targets[:200], {k: v[:200] if k == "sample_weight" else v for k, v in options.items()}
            ):
                hashes.update(part)
            for function in (ce.softmax, ce.log_softmax, ce.logsumexp):
                hashes.update(function(z[:200]).tobytes())
    return hashes.hexdigest()


def test_every_instruction_set_that_promises_bits():
    """ARM has its own command, make test-neon."""
    promised = [name for name in _core.available_instruction_sets if name != "baseline"]
    digests = {}
    for name in promised:
        script = "import test_bits; print(test_bits.digest())"
        environment = {**os.environ, "CROSSENTROPY_ISA": name}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        digests[name] = done.stdout.strip()
    assert len(set(digests.values())) == min(1, len(promised)), digests


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 3])
def test_threads_that_share_a_long_row(rows, dtype):
    # Rows that do not come out even are shared block by block; a million classes are enough for that.
    rng = np.random.default_rng(8)
    z = (3 * rng.standard_normal((rows, 1_000_003))).astype(dtype)
    z[0, 700_000] = 40
    for targets in (np.full(rows, 700_000), rng.random(z.shape).astype(np.float32)):
        for options in ({}, {"label_smoothing": 0.1, "softcap": 50.0}):
            expected = outcome(z, targets, options, num_threads=1)
            for threads in (2, 5):
                assert outcome(z, targets, options, num_threads=threads) == expected
            in_place = z.copy()
            ce.cross_entropy_with_grad(in_place, targets, **options, num_threads=2, out=in_place)
            assert in_place.tobytes() == expected[1]
    shared = [f(z, axis=-1).tobytes() for f in (ce.softmax, ce.log_softmax, ce.logsumexp)]
    threads = ce.get_num_threads()
    ce.set_num_threads(1)
    try:
        assert [f(z, axis=-1).tobytes() for f in (ce.softmax, ce.log_softmax, ce.logsumexp)] == shared
    finally:
        ce.set_num_threads(threads)


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_do_not_count_change_no_bit(weighted, rng):
    for rows in (1, 16, 33, 100):
        z, t, s = rng.standard_normal((rows, 3)), rng.integers(0, 3, rows), rng.random(rows)
        w = rng.random(3) if weighted else None
        alone = ce.cross_entropy_with_grad(z, t, class_weight=w, sample_weight=s)
        padded = ce.cross_entropy_with_grad(
            np.r_[z, [[9.0] * 3]], np.r_[t, -100], class_weight=w, sample_weight=np.r_[s, 1.0]
        )
        assert padded[0] == alone[0]
        np.testing.assert_array_equal(padded[1][:-1], alone[1])


@pytest.mark.parametrize("options", [{}, {"softcap": 30.0}, {"temperature": 0.7}, {"softcap": 9.0, "temperature": 0.7}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_entropy_beside_changes_no_bit_of_a_loss(options, dtype, rng):
    for classes in (5, 193, 5000):
        z, t = (20 * rng.standard_normal((4, classes))).astype(dtype), rng.integers(0, classes, 4)
        for axis in (1, 0):
            logits = np.moveaxis(z, 1, axis)
            log_prob = ce.log_prob_and_entropy(logits, t, axis=axis, **options)[0]
            np.testing.assert_array_equal(log_prob, ce.log_prob(logits, t, axis=axis, **options))
            losses = ce.cross_entropy(logits, t, axis=axis, reduction="none", **options)
            np.testing.assert_array_equal(log_prob, -losses)
