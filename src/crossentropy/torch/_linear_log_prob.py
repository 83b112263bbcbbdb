"""Log-probabilities of chosen classes, with the entropy of each row, from hidden states."""

from torch import Tensor

from .._options import loss_options
from ._arguments import check_head, check_indices
from ._head_chunks import as_head
from ._linear_log_prob_operator import head_log_prob


def linear_log_prob(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    entropy: bool = False,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Compute log-probabilities of classes for the logits ``input @ linear_weight.T + linear_bias``.

    The logits are made a chunk of rows at a time and never held all at once, nor is their gradient.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (D,) or (N, D)
        Hidden states.
    linear_weight : Tensor of shape (C, D) or (C, d_1, ..., d_K, D)
        The classifier.
    target : Tensor of integers
        Class indices: one for each row of the logits, of shape (), (N,) or (N, d_1, ..., d_K); or several, of shape
        (M,), (N, M) or (N, M, d_1, ..., d_K).
    linear_bias : Tensor of shape (C,) or (C, d_1, ..., d_K), optional
        Added to the logits.
    entropy, ignore_index, softcap, temperature
        As for `log_prob`.

    Returns
    -------
    Tensor, or a tuple of two
        As for `log_prob`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As for `log_prob`.

    Notes
    -----
    Exact to float32 for the logits as the product rounds them. Without gradients it takes one product; with them three
    more, since the logits are made again when the upstream gradients are known. A compiled program is one for all
    numbers of rows. Where the gradient itself is to be differentiated, in forward mode, under `torch.func` and on other
    devices, the same is composed of torch's operators, in row chunks (compiled, of all rows at once).

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import linear_log_prob
    >>> hidden = torch.tensor([[1.0, 0.5]])
    >>> linear_log_prob(hidden, torch.eye(2), torch.tensor([0]), entropy=True)
    (tensor([-0.4741]), tensor([0.6628]))
    """
    check_head("", input, linear_weight, linear_bias)
    check_indices(input.shape[:-1] + linear_weight.shape[:-1], target)
    options = loss_options(ignore_index=ignore_index, softcap=softcap, temperature=temperature, reduction="none")
    head, batched = as_head(input, linear_weight, linear_bias), input.dim() == 2
    log_probs, entropies = head_log_prob(options, head, target if batched else target.unsqueeze(0), entropy)
    if not batched:
        log_probs, entropies = log_probs.squeeze(0), None if entropies is None else entropies.squeeze(0)
    return log_probs if entropies is None else (log_probs, entropies)
