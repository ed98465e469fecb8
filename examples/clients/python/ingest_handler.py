"""Log to twisted-ingest with its own handler: lines, reconnecting, a traceback in one record."""

import logging

from twisted_ingest.logging_handler import IngestHandler

logging.basicConfig(level=logging.INFO, handlers=[IngestHandler(("127.0.0.1", 1514), app_name="shop")])

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
