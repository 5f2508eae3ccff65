"""`python -m allim` is the command `allim`."""

from allim.cli import main

if __name__ == "__main__":
    main()
