"""Log-probabilities of chosen classes, with the entropy of each row, from logits."""

from typing import Literal, overload

from torch import Tensor

from .._options import loss_options
from ._arguments import check_indices, check_logits
from ._kernel import is_distributed
from ._log_prob_kernel import log_prob_and_entropy


@overload
def log_prob(
    input: Tensor,
    target: Tensor,
    *,
    entropy: Literal[False] = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Tensor: ...
@overload
def log_prob(
    input: Tensor,
    target: Tensor,
    *,
    entropy: bool,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Tensor | tuple[Tensor, Tensor]: ...
def log_prob(
    input: Tensor,
    target: Tensor,
    *,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Compute log-probabilities of classes under the softmax, in nats, and where asked for its entropy.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (C,), (N, C) or (N, C, d_1, ..., d_K)
        Logits.
    target : Tensor of integers
        Class indices: one a row, of the input's shape without C; or several, of its shape with any number in place of
        C.
    entropy : bool
        Whether to return the entropy of each row too.
    ignore_index : int, optional
        This index gives 0, with no gradient. A row with no other indices does not count, whatever it holds: its
        entropy is 0.
    softcap, temperature
        As for `cross_entropy`.

    Returns
    -------
    Tensor, or a tuple of two
        The log-probabilities, of the shape of `target`; then the entropies, of the input's shape without C. float64
        for float64 input, else float32.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it should be; the message begins with its name.
    IndexError
        A class index is neither in [0, C) nor `ignore_index`.

    See Also
    --------
    linear_log_prob : the same from hidden states.
    crossentropy.log_prob_and_entropy : the same for arrays.

    Notes
    -----
    With u the (capped, divided) logits, m their maximum and r the sum of :math:`e^{u - m}` over all classes but one
    that attains m,

    .. math:: \log p_t = -(m - u_t) - \log(1 + r), \qquad H = \log(1 + r) + \sum_c p_c (m - u_c).

    Both keep their digits where the softmax is confident, as do their derivatives, :math:`e_t - p` and
    :math:`p_c ((m - u_c) - A)`, A that sum. A logit of -inf has probability 0 and adds nothing to the entropy.

    Policy gradients weigh the log-probabilities and average the entropy over the rows that count: multiplied with the
    advantages, some of them negative, its bonus would change its sign.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import log_prob
    >>> input = torch.tensor([[2.0, 1.0, 0.1], [20.0, 0.0, 0.0]], requires_grad=True)
    >>> chosen, entropy = log_prob(input, torch.tensor([1, 0]), entropy=True)
    >>> chosen.detach()
    tensor([-1.4170e+00, -4.1223e-09])
    >>> log_prob(input.detach(), torch.tensor([[0, 1], [2, -100]]))
    tensor([[ -0.4170,  -1.4170],
            [-20.0000,   0.0000]])
    """
    check_logits("input", input)
    check_indices(input.shape, target)
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    if is_distributed(input):
        from .distributed import _dtensor_family

        log_probs, entropies = _dtensor_family.log_prob_and_entropy(options, input, target, entropy)
    else:
        log_probs, entropies = log_prob_and_entropy(options, input, target, entropy)
    return log_probs if entropies is None else (log_probs, entropies)
