"""`python -m deepflow.cli` is `deepflow`."""

from deepflow.cli import main

main()
