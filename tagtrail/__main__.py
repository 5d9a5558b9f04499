"""`python -m tagtrail`."""

from tagtrail.cli.main import main

main()
