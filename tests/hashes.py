"""A hash of what every public function returns: shows that a change of the code has not changed a bit.

    python tests/hashes.py > before.txt            crossentropy
    python tests/hashes.py --torch                 crossentropy.torch
    python tests/hashes.py --jax                   crossentropy.jax
    python tests/hashes.py | diff before.txt -     after the change, in the same environment

There is one line for each function: its name, the number of its cases and of those that raise, and a SHA-256 of the
cases' names and results. A result is its types, dtypes, shapes and bytes; of an error, its type and message.
`--cases NAME` prints a line for each case of one function instead, to find the one that differs. Each mode takes about
a minute. What prints or sets the configuration is left out.

Inputs are made by integer arithmetic, so that no generator's version matters. Results do depend on the CPU and on the
versions of NumPy, its BLAS, torch and JAX, but not on the number of threads: libraries of matrix products have one.
"""

import argparse
import os
import warnings

# Before they are loaded.
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")

import numpy as np
from hashed.record import Hashes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    adapter = parser.add_mutually_exclusive_group()
    adapter.add_argument("--torch", action="store_true", help="the functions of crossentropy.torch")
    adapter.add_argument("--jax", action="store_true", help="the functions of crossentropy.jax")
    parser.add_argument("--cases", metavar="NAME", help="a line for each case of this function")
    arguments = parser.parse_args()
    if arguments.torch:
        from hashed.of_torch import add_cases
    elif arguments.jax:
        from hashed.of_jax import add_cases
    else:
        from hashed.of_numpy import add_cases
    hashes = Hashes()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        add_cases(hashes)
    print(*(hashes.case_lines(arguments.cases) if arguments.cases else hashes.lines()), sep="\n")


if __name__ == "__main__":
    main()
