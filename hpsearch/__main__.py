"""`python -m hpsearch` is `hpsearch`."""

from hpsearch.cli import main

main()
