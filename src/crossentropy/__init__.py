"""Softmax cross-entropy and its gradient: right to the last digits, the same bits on AVX2, AVX-512 and NEON.

>>> import crossentropy as ce
>>> loss = ce.cross_entropy([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [[0, 1, 0], [1, 0, 0]])
>>> round(loss, 12)
2.018508394742
"""

try:
    from ._config import get_num_threads, set_kept_memory, set_num_threads, show_config
    from ._core import version as __version__
except ModuleNotFoundError as error:
    if error.name != "crossentropy._core":
        raise
    raise ImportError(
        "crossentropy's compiled module is missing: the package has not been built. Install it with "
        "'pip install .' in the folder that holds pyproject.toml (this needs a C++ compiler), or run 'make' there."
    ) from error
except (ImportError, ValueError) as error:  # CROSSENTROPY_ISA, _NUM_THREADS or _KEPT_MEMORY names what there is not
    import sys as _sys

    # What Python was started with: a script of this name, or -m and this name.
    if _sys.orig_argv[-len(_sys.argv)].rpartition("/")[2] != "crossentropy":
        raise
    # The command line, which cannot be imported: one line, like its other failures.
    print(f"crossentropy: {error}", file=_sys.stderr)
    raise SystemExit(2) from None

from . import _reference as reference
from ._binary import BinaryCrossEntropyLoss, binary_cross_entropy, binary_cross_entropy_with_grad
from ._derivatives import cross_entropy_dtargets, cross_entropy_hessian_diagonal, cross_entropy_hvp
from ._divergence import kl_divergence, kl_divergence_with_grad
from ._divergence_call import DivergenceGradients
from ._entropy import entropy, entropy_with_grad
from ._explain import Explanation, explain
from ._functional import cross_entropy, cross_entropy_with_grad
from ._head import LinearGradients
from ._jensen_shannon import jensen_shannon, jensen_shannon_with_grad
from ._linear import linear_cross_entropy, linear_cross_entropy_with_grad
from ._linear_divergence import linear_kl_divergence, linear_kl_divergence_with_grad
from ._linear_divergence_call import LinearDivergenceGradients
from ._linear_jensen_shannon import linear_jensen_shannon, linear_jensen_shannon_with_grad
from ._linear_log_prob import (
    linear_log_prob,
    linear_log_prob_and_entropy,
    linear_log_prob_and_entropy_vjp,
    linear_log_prob_with_grad,
)
from ._log_prob import log_prob, log_prob_and_entropy, log_prob_and_entropy_vjp, log_prob_with_grad
from ._modules import CrossEntropyLoss, LinearCrossEntropyLoss
from ._probabilities import looks_like_probabilities
from ._softmax import log_softmax, logsumexp, softmax, softmax_jacobian, softmax_jvp, softmax_vjp
from ._targets import TopKTargets

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "DivergenceGradients",
    "Explanation",
    "LinearCrossEntropyLoss",
    "LinearDivergenceGradients",
    "LinearGradients",
    "TopKTargets",
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_with_grad",
    "cross_entropy",
    "cross_entropy_dtargets",
    "cross_entropy_hessian_diagonal",
    "cross_entropy_hvp",
    "cross_entropy_with_grad",
    "entropy",
    "entropy_with_grad",
    "explain",
    "get_num_threads",
    "jensen_shannon",
    "jensen_shannon_with_grad",
    "kl_divergence",
    "kl_divergence_with_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_with_grad",
    "linear_jensen_shannon",
    "linear_jensen_shannon_with_grad",
    "linear_kl_divergence",
    "linear_kl_divergence_with_grad",
    "linear_log_prob",
    "linear_log_prob_and_entropy",
    "linear_log_prob_and_entropy_vjp",
    "linear_log_prob_with_grad",
    "log_prob",
    "log_prob_and_entropy",
    "log_prob_and_entropy_vjp",
    "log_prob_with_grad",
    "log_softmax",
    "logsumexp",
    "looks_like_probabilities",
    "reference",
    "set_kept_memory",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]
