"""Log with rfc5424-logging-handler: RFC 5424 in lines, LF escaped, structured data where wanted."""

import logging
import socket

from rfc5424logging import Rfc5424SysLogHandler

handler = Rfc5424SysLogHandler(address=("127.0.0.1", 1514), socktype=socket.SOCK_STREAM, appname="shop")
logging.basicConfig(level=logging.INFO, handlers=[handler])

logging.info("started", extra={"structured_data": {"order@32473": {"id": "17"}}})
try:
    int("twelve")
except ValueError:
    logging.exception("no number")
