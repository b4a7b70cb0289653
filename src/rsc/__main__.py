"""`python -m rsc` is `rsc`."""

from rsc.cli.main import main

main()
