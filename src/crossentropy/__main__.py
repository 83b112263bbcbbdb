"""The command line, as python -m crossentropy."""

from .cli import main

main()
