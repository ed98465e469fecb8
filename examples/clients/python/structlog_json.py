"""Log with structlog: one JSON object a line, sent by our handler as it is."""

import logging

import structlog
from structlog.stdlib import ProcessorFormatter

from twisted_ingest.logging_handler import IngestHandler

common = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso")]
handler = IngestHandler(("127.0.0.1", 1514), raw=True)
handler.setFormatter(
    ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
)
logging.basicConfig(level=logging.INFO, handlers=[handler])
structlog.configure(
    processors=[*common, ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)

log = structlog.get_logger()
log.info("started", order=17)
try:
    int("twelve")
except ValueError:
    log.exception("no number")
