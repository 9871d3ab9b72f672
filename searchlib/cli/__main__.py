"""`python -m searchlib.cli` is the same as `searchlib`."""

from searchlib.cli import main

main()
