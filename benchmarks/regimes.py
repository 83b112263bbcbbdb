"""What is timed: sizes, dtypes, options and inputs, for peers.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Regime(NamedTuple):
    """What is computed."""

    shape: tuple[int, ...]
    seconds: float  # of timing
    gradient: bool = True
    dtype: str = "float32"
    axis: int = -1
    dense: bool = False  # targets are probabilities of the logits' dtype
    options: Mapping[str, float] = MappingProxyType({})
    weights: tuple[str, ...] = ()  # "class_weight", "sample_weight"

    @property
    def plain(self) -> bool:
        return not self.options and not self.weights


REGIMES = {
    "2048 x 32000": Regime((2048, 32000), 1.5),
    "512 x 128256": Regime((512, 128256), 1.5),
    "4096 x 1000": Regime((4096, 1000), 1.0),
    "65536 x 10": Regime((65536, 10), 1.0),
    "32 x 10": Regime((32, 10), 0.3),
    "2048 x 32000, loss only": Regime((2048, 32000), 1.0, gradient=False),
    "512 x 128256, bfloat16": Regime((512, 128256), 1.5, dtype="bfloat16"),
    "512 x 128256, float16": Regime((512, 128256), 1.5, dtype="float16"),
    "8 x 21 x 256 x 256, axis 1": Regime((8, 21, 256, 256), 1.0, axis=1),
    "4096 x 1000, probabilities": Regime((4096, 1000), 1.0, dense=True),
    "4096 x 1000, float64": Regime((4096, 1000), 1.0, dtype="float64"),
    "4096 x 1000, probabilities, float64": Regime((4096, 1000), 1.0, dtype="float64", dense=True),
    "16 x 4000003": Regime((16, 4000003), 1.5),
}
# An option beside the first, which has none.
PLAIN = "512 x 32000"
REGIMES |= {
    f"{PLAIN}{name}": Regime((512, 32000), 1.0, options=options, weights=weights)
    for name, options, weights in (
        ("", {}, ()),
        (", soft cap 30", {"softcap": 30.0}, ()),
        (", temperature 0.7", {"temperature": 0.7}, ()),
        (", label smoothing 0.1", {"label_smoothing": 0.1}, ()),
        (", class weights, label smoothing 0.1", {"label_smoothing": 0.1}, ("class_weight",)),
        (", sample weights", {}, ("sample_weight",)),
    )
}
# What the picture shows: as many logits in more and more classes, then more and more rows.
ELEMENTS, CLASSES_OF_ROWS = 1 << 22, 1000
SWEEPS = {
    "over classes": [f"{max(1, ELEMENTS // C)} x {C}" for C in (10, 100, 1000, 10_000, 100_000, 1_000_000, 4_000_000)],
    "over rows": [f"{rows} x {CLASSES_OF_ROWS}" for rows in (1, 8, 64, 512, 4096, 32_768)],
}


def regime_named(name: str) -> Regime:
    """One of the above, or any other "rows x classes"."""
    if name in REGIMES:
        return REGIMES[name]
    rows, _, classes = name.partition(" x ")
    return Regime((int(rows), int(classes)), 0.3)


def inputs(regime: Regime) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that has learnt something, and class indices or probabilities."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(regime.dtype) if regime.dtype != "bfloat16" else np.dtype(_bfloat16())
    logits = (4 * rng.standard_normal(regime.shape, dtype=np.float32)).astype(dtype)
    if regime.dense:
        q = rng.random(regime.shape)
        return logits, (q / q.sum(regime.axis, keepdims=True)).astype(dtype)
    return logits, rng.integers(0, regime.shape[regime.axis], np.delete(regime.shape, regime.axis))


def weights(regime: Regime) -> dict[str, Any]:
    """Those that the regime names, by name."""
    rng = np.random.default_rng(1)
    shapes = {"class_weight": regime.shape[regime.axis], "sample_weight": np.delete(regime.shape, regime.axis)}
    return {name: rng.random(shapes[name], dtype=np.float32) + np.float32(0.5) for name in regime.weights}


def _bfloat16() -> type:
    from ml_dtypes import bfloat16

    return bfloat16
