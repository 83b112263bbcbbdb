"""The binary loss: the same bits whatever the threads, the alignment, the instruction set, and what is asked for."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossentropy as ce
from crossentropy import _core

OPTIONS = (
    {},
    {"label_smoothing": 0.1, "pos_weight": 2.5},
    {"focal_gamma": 2.0},
    {"sample_weight": True, "pos_weight": True},
)


def examples():
    rng = np.random.default_rng(6)
    for dtype in (np.float16, np.float32, np.float64):
        for shape in ((3,), (90_001, 10)):
            z, y = (5 * rng.standard_normal(shape)).astype(dtype), rng.random(shape)
            for targets in (y.astype(np.float32), y, y < 0.5):
                for options in OPTIONS:
                    weights = {
                        name: rng.random(shape[-1:]) if value is True else value for name, value in options.items()
                    }
                    yield z, targets, weights


def outcome(z, targets, options, **more):
    loss, dlogits = ce.binary_cross_entropy_with_grad(z, targets, **options, **more)
    return np.asarray(loss).tobytes(), dlogits.tobytes()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_threads_and_what_is_asked_for(reduction):
    for z, targets, options in examples():
        expected = outcome(z, targets, options, reduction=reduction, num_threads=1)
        for threads in (2, 5):
            assert outcome(z, targets, options, reduction=reduction, num_threads=threads) == expected
        alone = ce.binary_cross_entropy(z, targets, reduction=reduction, **options)
        assert np.asarray(alone).tobytes() == expected[0]


def test_an_element_alone_and_among_others(rng):
    for dtype in (np.float32, np.float64):
        z, y = (5 * rng.standard_normal(301)).astype(dtype), rng.random(301)
        for options in ({}, {"sample_weight": rng.random(301)}, {"focal_gamma": 0.5}):
            losses, dlogits = ce.binary_cross_entropy_with_grad(z, y, reduction="none", **options)
            for at in (0, 31, 32, 255, 256, 300):
                here = {k: v[at : at + 1] if isinstance(v, np.ndarray) else v for k, v in options.items()}
                loss, gradient = ce.binary_cross_entropy_with_grad(
                    z[at : at + 1], y[at : at + 1], reduction="none", **here
                )
                assert loss.tobytes() == losses[at : at + 1].tobytes()
                assert gradient.tobytes() == dlogits[at : at + 1].tobytes()


def test_weights_by_any_shape(rng):
    """Weights that repeat are those of a full array."""
    z, y = (5 * rng.standard_normal((30, 4, 7))).astype(np.float32), rng.random((30, 4, 7))
    for of in ((), (7,), (4, 1), (30, 1, 1), (4, 7), (30, 1, 7)):
        weights = rng.random(of)
        full = np.broadcast_to(weights, z.shape)
        for name in ("pos_weight", "sample_weight"):
            assert outcome(z, y, {name: weights}, reduction="none") == outcome(z, y, {name: full}, reduction="none")


def digest() -> str:
    hashes = hashlib.sha256()
    for z, targets, options in examples():
        for part in outcome(z[:999], targets[:999], options):
            hashes.update(part)
    return hashes.hexdigest()


def test_every_instruction_set_that_promises_bits():
    promised = [name for name in _core.available_instruction_sets if name != "baseline"]
    digests = {}
    for name in promised:
        done = subprocess.run(
            [sys.executable, "-c", "import test_binary_bits; print(test_binary_bits.digest())"],
            cwd=Path(__file__).parent,
            env={**os.environ, "CROSSENTROPY_ISA": name},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        digests[name] = done.stdout.strip()
    assert len(set(digests.values())) == min(1, len(promised)), digests
