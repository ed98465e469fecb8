"""
Text from outside, made safe for a log line, a terminal and a status page.
"""

from twisted_ingest.limits import PREVIEW


def preview(data: bytes) -> str:
    """Show at most ``PREVIEW`` bytes of a peer's data so that no terminal or log reader can be harmed."""
    text = repr(data[:PREVIEW])[2:-1]
    return f"'{text}'…" if len(data) > PREVIEW else f"'{text}'"


def escape(text: str) -> str:
    """Escape what is not printable in a text that came from outside, such as a UNIX socket path."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
