"""``python -m fapilog``: the same as the command ``fapilog``."""

from fapilog.cli import main

if __name__ == "__main__":
    main()
