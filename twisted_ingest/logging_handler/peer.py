"""The server at the other end: where it is, and a connection to it."""

import socket

Address = tuple[str, int] | str
"""Host and port, or the path of a UNIX socket."""

CONNECT_SECONDS = 10.0
"""How long one try to connect may take."""

KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""Seconds of silence, seconds between probes, probes: a host that is gone is noticed within two minutes. Not
``TCP_USER_TIMEOUT``: Linux would end the connection to a server that holds its senders back for that long."""


def connect(address: Address) -> socket.socket:
    """Connect; gives a socket that blocks nobody. Raises ``OSError``. May take `CONNECT_SECONDS` for each address."""
    if isinstance(address, str):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(CONNECT_SECONDS)
        try:
            peer.connect(address)
        except OSError:
            peer.close()
            raise
    else:
        peer = socket.create_connection(address, CONNECT_SECONDS)
        set_options(peer)
    peer.setblocking(False)
    return peer


def set_options(peer: socket.socket) -> None:
    """Have the kernel find out that the other host is gone, where it knows these options; send at once."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
