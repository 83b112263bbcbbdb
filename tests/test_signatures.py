"""Every option of the loss in every signature, and on its way to the loss: `LossOptions` is the only list of them."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from signatures import OPTIONS, Differs, differences, differences_of_overloads, expected_options, report, takes
from textbook import A, Y

import crossentropy as ce
from crossentropy.cli import _eval, app

T, V, B = [1, 0], np.ones((2, 3)), [1, 0]


def forward(of, *data):
    return lambda **options: of(**options)(*data)


# Each function, and a call of it that lacks only options.
CALLS = {
    "cross_entropy": partial(ce.cross_entropy, A, T),
    "cross_entropy_with_grad": partial(ce.cross_entropy_with_grad, A, T),
    "cross_entropy_hvp": partial(ce.cross_entropy_hvp, A, T, V),
    "cross_entropy_hessian_diagonal": partial(ce.cross_entropy_hessian_diagonal, A, T),
    "cross_entropy_dtargets": partial(ce.cross_entropy_dtargets, A, Y),
    "binary_cross_entropy": partial(ce.binary_cross_entropy, B, B),
    "binary_cross_entropy_with_grad": partial(ce.binary_cross_entropy_with_grad, B, B),
    "BinaryCrossEntropyLoss": forward(ce.BinaryCrossEntropyLoss, B, B),
    "CrossEntropyLoss": forward(ce.CrossEntropyLoss, A, T),
    "linear_cross_entropy": partial(ce.linear_cross_entropy, A, np.eye(3), T),
    "linear_cross_entropy_with_grad": partial(ce.linear_cross_entropy_with_grad, A, np.eye(3), T),
    "LinearCrossEntropyLoss": forward(ce.LinearCrossEntropyLoss, A, np.eye(3), T),
    "explain": partial(ce.explain, A, T),
    "entropy": partial(ce.entropy, A),
    "entropy_with_grad": partial(ce.entropy_with_grad, A),
    "log_prob": partial(ce.log_prob, A, T),
    "log_prob_with_grad": partial(ce.log_prob_with_grad, A, T),
    "log_prob_and_entropy": partial(ce.log_prob_and_entropy, A, T),
    "log_prob_and_entropy_vjp": partial(ce.log_prob_and_entropy_vjp, A, T, 1.0, 1.0),
    "linear_log_prob": partial(ce.linear_log_prob, A, np.eye(3), T),
    "linear_log_prob_with_grad": partial(ce.linear_log_prob_with_grad, A, np.eye(3), T),
    "linear_log_prob_and_entropy": partial(ce.linear_log_prob_and_entropy, A, np.eye(3), T),
    "linear_log_prob_and_entropy_vjp": partial(ce.linear_log_prob_and_entropy_vjp, A, np.eye(3), T, 1.0, 1.0),
    "kl_divergence": partial(ce.kl_divergence, A, Y),
    "kl_divergence_with_grad": partial(ce.kl_divergence_with_grad, A, Y),
    "jensen_shannon": partial(ce.jensen_shannon, A, Y),
    "jensen_shannon_with_grad": partial(ce.jensen_shannon_with_grad, A, Y),
    "linear_kl_divergence": partial(ce.linear_kl_divergence, A, np.eye(3), A, np.eye(3)),
    "linear_kl_divergence_with_grad": partial(ce.linear_kl_divergence_with_grad, A, np.eye(3), A, np.eye(3)),
    "linear_jensen_shannon": partial(ce.linear_jensen_shannon, A, np.eye(3), A, np.eye(3)),
    "linear_jensen_shannon_with_grad": partial(ce.linear_jensen_shannon_with_grad, A, np.eye(3), A, np.eye(3)),
}
COMMANDS = {command.name: command.callback for command in app.registered_commands}
FUNCTIONS = {name: getattr(ce, name) for name in CALLS} | {
    "reference.cross_entropy_with_grad": ce.reference.cross_entropy_with_grad,
    "crossentropy eval": COMMANDS["eval"],
    "crossentropy explain": COMMANDS["explain"],
}
LESSON = "the lesson does not tell of them"
WITHOUT_TARGETS = ("label_smoothing", "z_loss", "entropy_bonus", "focal_gamma")
BINARY = Differs(
    "its logits are log-odds, of which none is ignored",
    without=("ignore_index", "z_loss", "entropy_bonus", "softcap", "temperature"),
)
OF_TWO_MODELS = Differs(
    "nothing of targets has a meaning between two models",
    without=tuple(name for name in OPTIONS if name not in ("softcap", "temperature", "reduction")),
)
DIFFERENT = {
    **{name: OF_TWO_MODELS for name in CALLS if "kl_" in name or "jensen" in name},
    "cross_entropy_dtargets": Differs(
        "no index ignores a row of probabilities, the focal loss takes no others, and the rest does not depend on them",
        without=("ignore_index", "z_loss", "entropy_bonus", "focal_gamma"),
    ),
    **dict.fromkeys(("binary_cross_entropy", "binary_cross_entropy_with_grad", "BinaryCrossEntropyLoss"), BINARY),
    "reference.cross_entropy_with_grad": Differs(
        "it validates nothing, and its arguments are those of another", documented=False
    ),
    "explain": Differs(LESSON, without=("entropy_bonus", "focal_gamma")),
    "entropy": Differs(
        "the entropy has no target", without=(*WITHOUT_TARGETS, "ignore_index"), defaults={"reduction": "none"}
    ),
    "entropy_with_grad": Differs(
        "the entropy has no target", without=(*WITHOUT_TARGETS, "ignore_index"), defaults={"reduction": "none"}
    ),
    **{
        name: Differs("a log-probability is no loss", without=(*WITHOUT_TARGETS, "reduction"))
        for name in CALLS
        if "log_prob" in name
    },
    "crossentropy eval": Differs(
        "a command line has no None to write, and a file of losses is no gradient",
        typer=True,
        annotations={"ignore_index": int, "reduction": _eval.Reduction},
        defaults={"reduction": _eval.Reduction.mean},
    ),
    "crossentropy explain": Differs(
        "a command line has no None to write, typer knows no Literal, the help lists first what lessons begin with, "
        "and lessons do not tell of all options",
        typer=True,
        without=("entropy_bonus", "focal_gamma"),
        annotations={"ignore_index": int, "reduction": str},
        first=("reduction", "label_smoothing", "temperature", "ignore_index"),
    ),
}


def options_of(name):
    return [option.name for option in expected_options(DIFFERENT.get(name))]


def test_every_public_function_that_takes_options_is_compared():
    public = [name for name in ce.__all__ if callable(getattr(ce, name))]
    assert {name for name in public if takes(getattr(ce, name))} == set(CALLS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name):
    found = differences(name, FUNCTIONS[name], DIFFERENT.get(name))
    assert not found, report(found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_overloads(name):
    if not isinstance(FUNCTIONS[name], type):
        found = differences_of_overloads(name, FUNCTIONS[name])
        assert not found, report(found)


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in CALLS for option in options_of(name)])
def test_option_reaches_the_loss(name, option):
    """Nonsense that no body forwards would pass silently."""
    CALLS[name]()
    with pytest.raises((TypeError, ValueError), match=f"^{option}: expected"):
        CALLS[name](**{option: "nonsense"})


# The reference validates nothing: what reaches its loss changes it.
CHANGES = {
    "ignore_index": 0,
    "label_smoothing": 0.5,
    "z_loss": 1.0,
    "entropy_bonus": 0.5,
    "focal_gamma": 2.0,
    "softcap": 1.0,
    "temperature": 2.0,
    "reduction": "sum",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_changes_the_reference(option):
    loss, dlogits = ce.reference.cross_entropy_with_grad(A, T)
    changed = ce.reference.cross_entropy_with_grad(A, T, **{option: CHANGES[option]})
    assert changed[0] != loss
    assert not np.array_equal(changed[1], dlogits)


@pytest.mark.parametrize(
    ("command", "option"), [(c, option) for c in ("eval", "explain") for option in options_of(f"crossentropy {c}")]
)
def test_option_of_a_command_reaches_the_loss(command, option, tmp_path):
    np.save(tmp_path / "logits.npy", A)
    np.save(tmp_path / "targets.npy", T)
    files = ["logits.npy", "targets.npy"] if command == "eval" else []
    wrong = {"ignore_index": 2**63, "reduction": "nonsense", "entropy_bonus": "nan"}.get(option, -1)
    program, flag = Path(sys.executable).with_name("crossentropy"), f"--{option.replace('_', '-')}"
    done = subprocess.run([program, command, *files, f"{flag}={wrong}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{option}: expected" in done.stderr or f"Invalid value for '{flag}'" in done.stderr
