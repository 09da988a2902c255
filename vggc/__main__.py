"""`python -m vggc`."""

from vggc.cli import main

if __name__ == "__main__":
    main()
