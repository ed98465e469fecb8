"""
A TCP log-line receiver you can audit.

Run it with ``twistd -n --pidfile= ingest`` or ``twisted-ingest``. To build on it, subclass
`twisted_ingest.server.protocol.IngestProtocol` or provide `twisted_ingest.interfaces.ISink`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("twisted-ingest")
except PackageNotFoundError:  # pragma: no cover - a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
