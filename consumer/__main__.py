"""`python -m consumer` is `vault-ml`."""

from consumer.cli import main

main()
