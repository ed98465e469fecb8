"""Clients that end records with NUL and put LF into them, as they come, without any setting."""

import logging
import logging.handlers
import re
import socket

from tests.clients import RecipeCase
from tests.test_real_clients import program

PERL = """
use Sys::Syslog qw(:standard :macros setlogsock);
setlogsock({ type => "tcp", host => "127.0.0.1", port => 1514 });
openlog("shop", "", LOG_USER);
syslog(LOG_INFO, "one");
syslog(LOG_INFO, "two\\nlines");
syslog(LOG_INFO, "three");
syslog(LOG_INFO, "four\\nmore\\nlines");
syslog(LOG_INFO, "five");
closelog();
"""


class StockClientTests(RecipeCase):
    def test_perl_several_lines(self) -> None:
        """Perl's ``Sys::Syslog``: LF and NUL, or NUL alone where a message holds LF; none is glued to the next."""
        (self.folder / "stock.pl").write_text(PERL.replace("1514", str(self.server.ports[0])))
        self.finish(self.start(program("perl", "perl"), str(self.folder / "stock.pl")))
        texts = [re.sub(rb"^<14>\w{3} [ \d]\d [\d:]{8} (\S+ )?shop: ", b"", line) for line in self.records(6)]
        # Only the first message of several lines is split: nothing has told yet that NUL ends records.
        self.assertEqual(texts, [b"one", b"two", b"lines", b"three", b"four\\nmore\\nlines", b"five"])

    def test_syslog_handler_first_record_of_several_lines(self) -> None:
        """Python's `SysLogHandler`, whose first record is a traceback: that is split once, all else is whole."""
        address = ("127.0.0.1", self.server.ports[0])
        handler = logging.handlers.SysLogHandler(address, socktype=socket.SOCK_STREAM)
        logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers
        logger.addHandler(handler)
        for text in ("first\nsecond\nthird", "after", "fourth\nfifth", "last"):
            logger.warning(text)
        handler.close()
        self.assertEqual(
            self.records(6),
            [b"<12>first", b"second", b"third", b"<12>after", b"<12>fourth\\nfifth", b"<12>last"],
        )
