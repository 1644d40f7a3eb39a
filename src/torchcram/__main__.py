"""``python -m torchcram`` is the command line."""

from torchcram.cli import main

if __name__ == "__main__":
    main()
