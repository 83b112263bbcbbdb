"""Problems for the tests of crossentropy.torch, and their solution in NumPy."""

import torch

import crossentropy as ce
import crossentropy.torch as ct

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0, "temperature": 0.7},
    {"label_smoothing": 0.2, "z_loss": 1e-2, "entropy_bonus": 0.3, "softcap": 5.0},
]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
REDUCTIONS = ["mean", "sum", "none"]
EPS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def problem(shape, probabilities=False, dtype=torch.float64):
    """Logits, targets, class weights and sample weights; of indices one is ignored, one row does not count."""
    z = (3 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    axis = min(1, len(shape) - 1)
    rows = shape[:axis] + shape[axis + 1 :]
    t = torch.rand(shape, dtype=dtype) if probabilities else torch.randint(0, shape[axis], rows)
    s = torch.rand(rows, dtype=torch.float64) + 0.5
    if rows and not probabilities:
        t.view(-1)[1] = -100
    if rows:
        s.view(-1)[0] = 0
    return z, t, torch.rand(shape[axis], dtype=torch.float64) + 0.5, s


def reference(z, t, w, s, reduction="mean", grad_output=1.0, **options):
    """Loss and gradient from the definition in NumPy, the class axis where torch has it."""
    axis = min(1, z.dim() - 1)
    A = z.detach().double().movedim(axis, -1).numpy()
    Y = t.detach().double().movedim(axis, -1).numpy() if t.shape == z.shape else t.numpy()
    w, s = (None if x is None else x.double().numpy() for x in (w, s))
    options = {"class_weight": w, "sample_weight": s, "reduction": reduction, "grad_output": grad_output} | options
    loss, dlogits = ce.reference.cross_entropy_with_grad(A, Y, **options)
    return torch.as_tensor(loss, dtype=torch.float64), torch.from_numpy(dlogits).movedim(-1, axis)


def close(actual, expected, dtype):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=EPS[dtype], atol=EPS[dtype])


def loss_and_gradient(z, t, grad_output=None, function=ct.cross_entropy, **options):
    z = z.detach().requires_grad_()
    loss = function(z, t, **options)
    loss.backward(grad_output)
    return loss.detach(), z.grad
