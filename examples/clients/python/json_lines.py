"""Log with python-logstash: one JSON object a line."""

import logging

from logstash import TCPLogstashHandler

logging.basicConfig(level=logging.INFO, handlers=[TCPLogstashHandler("127.0.0.1", 1514, version=1)])

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
