"""The functions of crossentropy.torch: eager, composed, under torch.func, compiled."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from hashed.inputs import Options, Problem, cases, edges, numbers, problems
from hashed.record import Hashes
from torch import Tensor
from torch.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vmap

import crossentropy as ce
import crossentropy.torch as ct

Loss = Callable[..., Tensor]


class Other(Tensor):
    """A subclass, for which the loss is composed of torch's operators."""


def add_cases(hashes: Hashes) -> None:
    torch.set_num_threads(1)
    # Which library multiplies is decided by a clock: by this one all take equally long.
    with mock.patch("time.perf_counter", itertools.count().__next__):
        for dtype in (torch.float32, torch.float64):
            ct.linear_cross_entropy(torch.ones(2, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype), torch.tensor([0, 1]))
    assert time.perf_counter() != time.perf_counter()
    _losses(hashes)
    _heads(hashes)
    _modules(hashes)
    _transforms(hashes, "cross_entropy", _functions(ct.cross_entropy))
    _transforms(hashes, "linear_cross_entropy", _functions_of_a_head())
    _errors(hashes)


def tensor(array: Any) -> Tensor:
    """Of an array of any dtype, bfloat16 too; a number of its own memory."""
    array = np.array(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _cases(some: Iterator[Problem]) -> Iterator[tuple[str, Tensor, Tensor, Options]]:
    """Problems with what torch calls the options; the classes are on axis 1."""
    for case, (_, z, _, t), given in cases(some):
        if isinstance(t, ce.TopKTargets) or (t.shape == z.shape and t.dtype.kind in "iu"):
            continue
        if given.get("ignore_index", 0) is None or (t.shape == z.shape and given.get("ignore_index", -1) >= 0):
            continue
        renamed = {"weight" if key == "class_weight" else key: value for key, value in given.items()}
        yield case, tensor(z), tensor(t), {k: tensor(x) if isinstance(x, np.ndarray) else x for k, x in renamed.items()}


def _gradients(loss: Loss, inputs: tuple[Tensor, ...], upstream: Any, twice: bool = False) -> list[Any]:
    """Loss, gradients, and the gradients of their sum."""
    inputs = tuple(x.clone().requires_grad_(x.is_floating_point()) for x in inputs)
    wanted = [x for x in inputs if x.requires_grad]
    value = loss(*inputs)
    g = tensor(np.broadcast_to(upstream, value.shape)).to(value.dtype)
    gradients = torch.autograd.grad(value, wanted, g, create_graph=twice)
    if not twice:
        return [value, list(gradients)]
    total = sum(gradient.double().sum() * gradient.double().sum() for gradient in gradients)
    return [value, list(gradients), list(torch.autograd.grad(total, wanted))]


def _upstream(rows: tuple[int, ...], given: Options) -> Any:
    return numbers(9, rows, -2.0, 2.0) if given["reduction"] == "none" else -1.75


SHAPES = {(9, 1): 1, (37, 10): 1, (3, 193): 1, (2, 10, 5): 1, (5,): 0, (2, 4000): 1}


def _losses(hashes: Hashes) -> None:
    name = "cross_entropy"
    for case, z, t, given in itertools.chain(_cases(problems(shapes=SHAPES)), _cases(edges())):
        rows = z.shape[:1] + z.shape[2:] if z.dim() > 1 else ()

        def loss(z: Tensor, t: Tensor = t, given: Options = given) -> Tensor:
            return ct.cross_entropy(z, t, **given)

        hashes.add(name, f"{case}, loss alone", loss, z)
        hashes.add(name, case, _gradients, loss, (z,), 1.0)
        hashes.add(name, f"{case}, times", _gradients, loss, (z,), _upstream(rows, given))
        if z.numel() < 100:
            hashes.add(name, f"{case}, twice", _gradients, loss, (z,), _upstream(rows, given), twice=True)
            hashes.add(name, f"{case}, composed", _gradients, loss, (z.as_subclass(Other),), _upstream(rows, given))
            if t.is_floating_point():
                hashes.add(name, f"{case}, of both", _gradients, lambda z, t: loss(z, t), (z, t), 1.0)
        if given["reduction"] == "mean":
            for items in (7, 0.0, torch.tensor(12.5)):
                more = {**given, "num_items": items}
                hashes.add(name, f"{case}, {items} items", lambda z, t, o: ct.cross_entropy(z, t, **o), z, t, more)


def _heads(hashes: Hashes) -> None:
    name = "linear_cross_entropy"
    for dtype, (rows, width, classes) in itertools.product(
        (torch.float16, torch.bfloat16, torch.float32, torch.float64), ((9, 4, (5,)), (6, 3, (4, 2)), (0, 3, (4,)))
    ):
        h, W = (
            tensor(numbers(seed, shape, -1.0, 1.0)).to(dtype)
            for seed, shape in ((11, (rows, width)), (12, (*classes, width)))
        )
        b = tensor(numbers(13, classes, -1.0, 1.0)).to(dtype)
        for case, _, t, given in _cases(problems(("float64",), {(rows, *classes): 1})):
            for inputs in ((h, W), (h, W, b)):

                def loss(
                    h: Tensor, W: Tensor, b: Tensor | None = None, t: Tensor = t, given: Options = given
                ) -> Tensor:
                    return ct.linear_cross_entropy(
                        h, W, t.to(h.dtype) if t.is_floating_point() else t, linear_bias=b, **given
                    )

                label = f"{dtype}, {case}, {len(inputs)} inputs"
                hashes.add(name, f"{label}, loss alone", loss, *inputs)
                hashes.add(name, label, _gradients, loss, inputs, 1.0)
                hashes.add(name, f"{label}, times", _gradients, loss, inputs, _upstream((rows, *classes[1:]), given))
                if rows == 6 and dtype == torch.float64:
                    hashes.add(name, f"{label}, twice", _gradients, loss, inputs, 1.0, twice=True)


def _modules(hashes: Hashes) -> None:
    shapes = {(37, 10): 1, (2, 10, 5): 1, (5,): 0}
    for case, z, t, given in _cases(problems(("float16", "float32", "float64"), shapes)):
        without = dict(given)
        s = without.pop("sample_weight", None)
        hashes.add("CrossEntropyLoss", case, _gradients, _module(without, t, s), (z,), 1.0)
    h = tensor(numbers(11, (37, 3), -1.0, 1.0))
    for case, _, t, given in _cases(problems(("float64",), {(37, 10): 1})):
        without = dict(given)
        s = without.pop("sample_weight", None)
        hashes.add("LinearCrossEntropyLoss", case, _head_module, h, t, s, without)


def _module(given: Options, t: Tensor, s: Tensor | None) -> Loss:
    return lambda z: ct.CrossEntropyLoss(**given)(z, t, sample_weight=s)


def _head_module(h: Tensor, t: Tensor, s: Tensor | None, given: Options) -> list[Any]:
    module = ct.LinearCrossEntropyLoss(3, 10, bias=True, dtype=torch.float64, **given)
    with torch.no_grad():
        module.linear.weight.copy_(tensor(numbers(12, (10, 3), -1.0, 1.0)))
        module.linear.bias.copy_(tensor(numbers(13, (10,), -1.0, 1.0)))
    loss = module(h, t, sample_weight=s)
    loss.sum().backward()
    return [loss, module.linear.weight.grad, module.linear.bias.grad]


def _functions(cross_entropy: Loss) -> dict[str, Callable[[], Any]]:
    z, v = (tensor(numbers(seed, (6, 4), -4.0, 4.0)) for seed in (1, 10))
    zs, ws = tensor(numbers(14, (3, 6, 4), -4.0, 4.0)), tensor(numbers(15, (3, 4), 0.5, 2.0))
    t, ts = torch.arange(6) % 4, torch.arange(18).reshape(3, 6) % 4
    t[2] = -100
    q = tensor(numbers(5, (6, 4), 0.0, 0.5))

    def loss(z: Tensor, t: Tensor, w: Tensor = ws[0]) -> Tensor:
        return cross_entropy(z, t, weight=w, z_loss=0.01, softcap=5.0, temperature=0.7, label_smoothing=0.1)

    def losses(z: Tensor, t: Tensor) -> Tensor:
        return cross_entropy(z, t, reduction="none", z_loss=0.01)

    return {
        "value": lambda: loss(z, t),
        "grad": lambda: grad_and_value(loss)(z, t),
        "grad of both": lambda: grad(loss, argnums=(0, 1))(z, q),
        "jvp": lambda: jvp(lambda z: loss(z, t), (z,), (v,)),
        "jacrev": lambda: jacrev(losses)(z, t),
        "jacfwd": lambda: jacfwd(losses)(z, t),
        "hessian": lambda: hessian(loss)(z, t),
        "vmap": lambda: vmap(loss)(zs, ts),
        "vmap of the last axis": lambda: vmap(losses, in_dims=(2, 0))(zs.movedim(0, 2), ts),
        "vmap of targets": lambda: vmap(losses, in_dims=(None, 0))(z, ts),
        "vmap of weights": lambda: vmap(loss, in_dims=(None, None, 0))(z, t, ws),
        "vmap of grad": lambda: vmap(grad(loss))(zs, ts),
        "vmap of vmap": lambda: vmap(vmap(losses))(zs[:, :, None], ts[:, :, None]),
    }


def _functions_of_a_head() -> dict[str, Callable[[], Any]]:
    inputs = tuple(tensor(numbers(n, shape, -1.0, 1.0)) for n, shape in enumerate(((6, 5), (4, 5), (4,)), 20))
    t = torch.arange(6) % 4

    def head(h: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return ct.linear_cross_entropy(h, W, t, linear_bias=b, z_loss=0.01, softcap=5.0)

    h, W, b = inputs
    return {
        "value": lambda: head(*inputs),
        "grad": lambda: grad(head, argnums=(0, 1, 2))(*inputs),
        "jvp": lambda: jvp(head, inputs, inputs),
        "hessian": lambda: hessian(head, argnums=1)(*inputs),
        "vmap": lambda: vmap(head, in_dims=(0, None, None))(torch.stack([h, -h]), W, b),
    }


def _transforms(hashes: Hashes, name: str, functions: dict[str, Callable[[], Any]]) -> None:
    for case, function in functions.items():
        hashes.add(name, case, function)
        hashes.add(name, f"{case}, compiled", torch.compile(function, fullgraph=True, backend="aot_eager"))
        torch._dynamo.reset()


def _errors(hashes: Hashes) -> None:
    z, t, W = torch.zeros(2, 3), torch.tensor([1, 0]), torch.ones(3, 3)
    wrong: list[tuple[Tensor, Tensor, Options]] = [
        *(
            (z, bad, {})
            for bad in (torch.tensor([3, 0]), torch.tensor([0, -1]), torch.tensor([0]), t.double(), z.bool())
        ),
        *((bad, t, {}) for bad in (z.long(), z[:, :0], z[0], z.to(torch.complex64))),
        *((z, t, {"weight": torch.tensor(w)}) for w in ([1.0, 1], [1.0, -1, 1], [1.0, torch.inf, 1], [1j, 1, 1])),
        *((z, t, {"sample_weight": torch.tensor(s)}) for s in ([1.0], [1.0, -1], [1.0, torch.nan], [1j, 1])),
        *((z, t, {"num_items": n}) for n in (-1, torch.inf, "1", True, torch.ones(2), torch.tensor(-1.0))),
        (z, t, {"num_items": 1, "reduction": "sum"}),
        *((z, t, {"label_smoothing": x}) for x in (1.5, -0.1, torch.nan, "0.1")),
        *((z, t, {"z_loss": x}) for x in (-1.0, torch.inf, "0.1")),
        *((z, t, {"softcap": x}) for x in (0.0, 1e-101, torch.nan, True)),
        *((z, t, {"temperature": x}) for x in (0.0, torch.inf, None)),
        *((z, t, {"ignore_index": x}) for x in (None, 1.5, 1)),
        *((z, t, {"reduction": x}) for x in ("average", None)),
        (z, t, {"unknown": 1}),
    ]
    for i, (logits, target, given) in enumerate(wrong):
        hashes.add("cross_entropy", f"wrong {i}", ct.cross_entropy, logits, target, **given)
        hashes.add("linear_cross_entropy", f"wrong {i}", ct.linear_cross_entropy, logits, W, target, **given)
        without = {key: value for key, value in given.items() if key not in ("sample_weight", "num_items")}
        hashes.add(
            "CrossEntropyLoss", f"wrong {i}", lambda z, t, o: ct.CrossEntropyLoss(**o)(z, t), logits, target, without
        )
    for reduce, average in itertools.product((None, True, False), repeat=2):
        more = {"reduce": reduce, "size_average": average}
        hashes.add("cross_entropy", f"reduce {reduce}, {average}", ct.cross_entropy, z, t, **more)
    for i, bad in enumerate((W[:, :2], W[:0], W.double(), W[0])):
        hashes.add("linear_cross_entropy", f"wrong head {i}", ct.linear_cross_entropy, z, bad, t)
    hashes.add("linear_cross_entropy", "wrong bias", ct.linear_cross_entropy, z, W, t, linear_bias=W)
