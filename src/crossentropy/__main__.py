"""The command line, as python -m crossentropy."""

from .cli import main

if __name__ == "__main__":
    main()
