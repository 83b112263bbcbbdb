"""Every option of the loss in every signature of crossentropy.torch, and on its way to the loss."""

import inspect
from functools import partial

import pytest
import torch
from signatures import Differs, differences, expected_options, report, takes

import crossentropy.torch as ct

Z, T, W = torch.tensor([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), torch.tensor([1, 0]), torch.eye(3)
FUNCTIONS = {name: getattr(ct, name) for name in ct.__all__}


def forward(module, *sizes, targets=T):
    """A call of a module. Those of torch are set later: its constructor may refuse them before our loss does."""
    theirs = inspect.signature(module.__base__).parameters

    def call(**options):
        made = module(*sizes, **{name: value for name, value in options.items() if name not in theirs})
        for name in options.keys() & theirs:
            setattr(made, name, options[name])
        return made(Z, targets)

    return call


CALLS = {
    "cross_entropy": partial(ct.cross_entropy, Z, T),
    "linear_cross_entropy": partial(ct.linear_cross_entropy, Z, W, T),
    "log_prob": partial(ct.log_prob, Z, T),
    "linear_log_prob": partial(ct.linear_log_prob, Z, W, T),
    "kl_divergence": partial(ct.kl_divergence, Z, Z),
    "jensen_shannon": partial(ct.jensen_shannon, Z, Z),
    "linear_kl_divergence": partial(ct.linear_kl_divergence, Z, W, Z, W),
    "linear_jensen_shannon": partial(ct.linear_jensen_shannon, Z, W, Z, W),
    "binary_cross_entropy_with_logits": partial(ct.binary_cross_entropy_with_logits, Z, Z),
    "BCEWithLogitsLoss": forward(ct.BCEWithLogitsLoss, targets=Z),
    "CrossEntropyLoss": forward(ct.CrossEntropyLoss),
    "LinearCrossEntropyLoss": forward(ct.LinearCrossEntropyLoss, 3, 3),
}
LIKE_TORCH = Differs(
    "it stands in place of torch's own, which has these first, and no None for ignore_index",
    first=("ignore_index", "reduction", "label_smoothing"),
    annotations={"ignore_index": int},
)
HEAD_LIKE_TORCH = Differs(
    "it stands in place of torch's own, which has these first, and None for an ignore_index of -100",
    first=("reduction", "ignore_index", "label_smoothing"),
    defaults={"ignore_index": None},
)
OF_THE_LOSS = ("label_smoothing", "z_loss", "entropy_bonus", "focal_gamma")
LOG_PROB = Differs("it returns no loss, and one number for each index", without=(*OF_THE_LOSS, "reduction"))
DIVERGENCE = Differs(
    "its targets are the teacher's probabilities; reduction comes first, as in torch's functions",
    without=(*OF_THE_LOSS, "ignore_index"),
    first=("reduction",),
)
BINARY_LIKE_TORCH = Differs(
    "it stands in place of torch's own, which has the reduction first; of log-odds none is ignored",
    without=("ignore_index", "z_loss", "entropy_bonus", "softcap", "temperature"),
    first=("reduction",),
)
DIFFERENT = {
    "log_prob": LOG_PROB,
    "linear_log_prob": LOG_PROB,
    "kl_divergence": DIVERGENCE,
    "jensen_shannon": DIVERGENCE,
    "linear_kl_divergence": DIVERGENCE,
    "linear_jensen_shannon": DIVERGENCE,
    "binary_cross_entropy_with_logits": BINARY_LIKE_TORCH,
    "BCEWithLogitsLoss": BINARY_LIKE_TORCH,
    "cross_entropy": LIKE_TORCH,
    "CrossEntropyLoss": LIKE_TORCH,
    "linear_cross_entropy": HEAD_LIKE_TORCH,
    "LinearCrossEntropyLoss": HEAD_LIKE_TORCH,
}


def test_every_public_function_takes_options():
    assert set(CALLS) == set(ct.__all__) == {name for name in FUNCTIONS if takes(FUNCTIONS[name])}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name):
    found = differences(name, FUNCTIONS[name], DIFFERENT[name])
    assert not found, report(found)


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option.name) for name in CALLS for option in expected_options(DIFFERENT[name])],
)
def test_option_reaches_the_loss(name, option):
    """Nonsense that no body forwards would pass silently. Of its own options torch says what is wrong."""
    CALLS[name]()
    with pytest.raises((TypeError, ValueError), match=option):
        CALLS[name](**{option: "nonsense"})
