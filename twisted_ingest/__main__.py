"""``python -m twisted_ingest``."""

from twisted_ingest.cli import main

main()
