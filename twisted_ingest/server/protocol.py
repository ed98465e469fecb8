"""
The name that those who embed a server know the protocol of lines by.
"""

from twisted_ingest.server.lines import IngestProtocol

__all__ = ["IngestProtocol"]
