#!/bin/sh
# The tests that need nothing but the installed package and pytest, by the python of PATH.
set -eu
cd "${0%/*}/.."
exec python -m pytest tests/explore/test_page.py tests/test_arguments.py tests/test_axis.py tests/test_bits.py \
    tests/test_edge_cases.py tests/test_functional.py tests/test_gradients.py tests/test_modules.py \
    tests/test_options.py tests/test_out.py tests/test_package.py tests/test_softmax.py tests/test_sound.py \
    tests/test_top_k.py
