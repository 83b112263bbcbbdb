"""PyTorch's own test cases of the losses and their modules (torch.testing._internal of torch 2.13).

In a process of their own: importing them changes settings of Hypothesis. No case is left out. Two differences are on
purpose: losses of half-precision input are float32, so results are compared by value, not by dtype; and the mean over
nothing but ignored rows, where torch expects NaN, is 0.
"""

from functools import partial

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import crossentropy.torch as ct

# torch's of its own: its chunks do not take every sample, its patterns hold nested sets.
pytestmark = [
    pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored:UserWarning"),
    pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning"),
]

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
MODULES = {
    ct.BCEWithLogitsLoss: torch.nn.BCEWithLogitsLoss,
    ct.CrossEntropyLoss: torch.nn.CrossEntropyLoss,
    ct.LinearCrossEntropyLoss: torch.nn.LinearCrossEntropyLoss,
}
CASES = {ct.BCEWithLogitsLoss: 6, ct.CrossEntropyLoss: 105, ct.LinearCrossEntropyLoss: 105}  # at least
ERRORS = {ct.CrossEntropyLoss: 7, ct.LinearCrossEntropyLoss: 5}
FUNCTIONS = {
    "nn.functional.binary_cross_entropy_with_logits": ct.binary_cross_entropy_with_logits,
    "nn.functional.cross_entropy": ct.cross_entropy,
    "nn.functional.linear_cross_entropy": ct.linear_cross_entropy,
}
INFO = {ours: next(info for info in module_db if info.module_cls is theirs) for ours, theirs in MODULES.items()}
OPS = [op for op in op_db if op.name in FUNCTIONS]
# What torch asserts of its own modules in half precision.
TOLERANCE = {torch.float16: {"atol": 2e-2, "rtol": 2e-2}, torch.bfloat16: {"atol": 4e-2, "rtol": 4e-2}}


def name_of(value):
    return getattr(value, "formatted_name", getattr(value, "__name__", str(value)))


def inputs_of(module, dtype, requires_grad):
    torch.manual_seed(0)
    info = INFO[module]
    return info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=True)


def call(function, given):
    return function(*given.args, **given.kwargs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_module_equals_torchs_reference(module, dtype):
    cases = 0
    for case in inputs_of(module, dtype, False):
        ours = call(module, case.constructor_input).to(dtype)
        actual = call(ours, case.forward_input)
        expected = case.reference_fn(ours, *case.forward_input.args, **case.forward_input.kwargs)
        if (
            ours.reduction == "mean"
            and getattr(ours, "ignore_index", None) is not None
            and (case.forward_input.args[1] == ours.ignore_index).all()
        ):
            assert expected.isnan()
            expected = torch.zeros_like(expected)
        torch.testing.assert_close(actual, expected, check_dtype=False, **TOLERANCE.get(dtype, {}))
        cases += 1
    assert cases >= CASES[module]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_module_gradients_equal_torchs(module, dtype):
    for case in inputs_of(module, dtype, True):
        ours, theirs = (call(cls, case.constructor_input) for cls in (module, MODULES[module]))
        theirs.load_state_dict(ours.state_dict())
        found = []
        for loss, exact in ((ours, dtype), (theirs, torch.float64)):
            input, target = (tensor.detach() for tensor in case.forward_input.args)
            input = input.to(exact).requires_grad_()
            loss.to(exact)(input, target.to(exact) if target.is_floating_point() else target).sum().backward()
            found.append([input.grad, *(parameter.grad for parameter in loss.parameters())])
        for actual, expected in zip(*found, strict=True):
            assert (actual - expected).norm() <= 8 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("module", ERRORS, ids=name_of)
def test_module_errors(module, dtype):
    info = INFO[module]
    cases = info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
    for case in cases:
        given = case.module_error_input

        def made_and_called(given=given, case=case):
            ours = call(module, given.constructor_input)
            assert case.error_on is ModuleErrorEnum.FORWARD_ERROR
            call(ours, given.forward_input)

        with pytest.raises(case.error_type, match=case.error_regex):
            made_and_called()
    assert len(cases) == ERRORS[module]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS, ids=name_of)
def test_function_equals_torchs(op, dtype):
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", dtype):
        given = (sample.input, *sample.args)
        exact = given
        if "binary" in op.name and dtype.itemsize == 2:  # torch rounds each of its terms, which then cancel
            exact = [tensor.float() for tensor in given]
        expected = op.op(*exact, **sample.kwargs)
        actual = FUNCTIONS[op.name](*given, **sample.kwargs)
        torch.testing.assert_close(actual, expected, check_dtype=False, **TOLERANCE.get(dtype, {}))


@pytest.mark.parametrize("op", OPS, ids=name_of)
def test_function_derivatives(op):
    """gradcheck and gradgradcheck, forward mode and batches of gradients with them, in its fast mode for the others."""
    torch.manual_seed(0)
    check = {"fast_mode": op.name != "nn.functional.cross_entropy", "check_batched_grad": True}
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        given = dict(enumerate((sample.input, *sample.args))) | sample.kwargs
        wanted = {key: value for key, value in given.items() if isinstance(value, torch.Tensor) and value.requires_grad}

        def function(*tensors, given=given, wanted=wanted):
            full = given | dict(zip(wanted, tensors, strict=True))
            args = [full.pop(i) for i in range(len(full)) if i in full]
            return FUNCTIONS[op.name](*args, **full)

        assert torch.autograd.gradcheck(function, tuple(wanted.values()), check_forward_ad=True, **check)
        assert torch.autograd.gradgradcheck(function, tuple(wanted.values()), check_fwd_over_rev=True, **check)


@pytest.mark.parametrize("op", [op for op in OPS if op.error_inputs_func is not None], ids=name_of)
def test_function_errors(op):
    for case in op.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises(case.error_type, match=case.error_regex):
            partial(FUNCTIONS[op.name], sample.input, *sample.args, **sample.kwargs)()
