"""Log with graypy: GELF, each record ended by NUL."""

import logging

import graypy

logging.basicConfig(level=logging.INFO, handlers=[graypy.GELFTCPHandler("127.0.0.1", 1514)])

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
