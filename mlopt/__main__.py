"""`python -m mlopt`."""

from mlopt.cli.main import entry

if __name__ == "__main__":
    entry()
