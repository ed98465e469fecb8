"""Log with loguru through our handler: loguru takes handlers of the standard library."""

from loguru import logger

from twisted_ingest.logging_handler import IngestHandler

logger.remove()
logger.add(IngestHandler(("127.0.0.1", 1514), app_name="shop"), format="{message}", backtrace=False, diagnose=False)

logger.info("started")
try:
    int("twelve")
except ValueError:
    logger.exception("no number")
