"""Log with the standard library's SysLogHandler over TCP: RFC 5424, and LF behind each record instead of NUL."""

import logging
import logging.handlers
import socket
import time


class OneLine(logging.Formatter):
    """Ends a record with the only LF in it; UTC."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Write a traceback as one line."""
        return super().format(record).replace("\n", "\\n") + "\n"


handler = logging.handlers.SysLogHandler(("127.0.0.1", 1514), socktype=socket.SOCK_STREAM)
handler.append_nul = False
handler.setFormatter(OneLine(f"1 %(asctime)s {socket.gethostname()} shop %(process)d - - %(message)s", "%Y-%m-%dT%TZ"))
logging.basicConfig(level=logging.INFO, handlers=[handler])

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
