"""Log to twisted-ingest over RELP: what is not answered is sent again. Configured as Django and others want it."""

import logging.config

logging.config.dictConfig(
    {
        "version": 1,
        "formatters": {"text": {"format": "%(levelname)s %(message)s"}},
        "handlers": {
            "ingest": {
                "class": "twisted_ingest.logging_handler.IngestHandler",
                "address": ["127.0.0.1", 20514],
                "protocol": "relp",
                "app_name": "shop",
                "formatter": "text",
            }
        },
        "root": {"level": "INFO", "handlers": ["ingest"]},
    }
)

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
