"""`python -m infdiff COMMAND`: the same as `infdiff COMMAND`."""

from infdiff.commands import main

if __name__ == "__main__":
    main()
