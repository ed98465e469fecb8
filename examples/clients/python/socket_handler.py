"""Log over TCP with the standard library's SocketHandler: text and LF instead of a pickle. It reconnects."""

import logging
import logging.handlers


class LineHandler(logging.handlers.SocketHandler):
    """Sends what the formatter writes, in one line."""

    def makePickle(self, record: logging.LogRecord) -> bytes:
        """Give the bytes to send."""
        return self.format(record).replace("\n", "\\n").encode() + b"\n"


handler = LineHandler("127.0.0.1", 1514)
handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])

logging.info("started")
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
