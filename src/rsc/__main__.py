"""`python -m rsc` is `rsc`."""

from rsc.cli.start import main

main()
