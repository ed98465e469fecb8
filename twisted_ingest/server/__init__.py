"""Wires: the protocol, the factory that tracks connections, admission, listening."""
