"""
What the kernel knows of our sockets: what is unread, and whose peer has hung up.
"""

import fcntl
import select
import socket as sockets
import struct
import termios
from collections.abc import Sequence
from typing import Any

_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def hung_up(transports: Sequence[Any]) -> frozenset[Any]:
    """Ask the kernel, in one call for all, which of our sockets have lost their peer (FIN or RST), read or not."""
    poll, by_number = select.poll(), {}
    for transport in transports:
        number = transport.fileno()
        if number >= 0:
            by_number[number] = transport
            poll.register(number, select.POLLRDHUP)
    return frozenset(by_number[number] for number, events in poll.poll(0) if events & _HUNG_UP)


def unread_bytes(handle: sockets.socket) -> int:
    """Ask the kernel (``SIOCINQ``) how many bytes of a socket we have not read; 0 when it is closed."""
    try:
        answer = fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0\0\0\0")
    except (OSError, ValueError):
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count
