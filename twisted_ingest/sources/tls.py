"""
TLS of a listener: its table, and what is made of it.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator

from twisted_ingest.config.fields import About, FilePath, Table
from twisted_ingest.server.certificates import Files, MinVersion
from twisted_ingest.server.tls_names import PeerNames
from twisted_ingest.units import quote


def _peers(value: Any) -> PeerNames:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{quote(value)} are no names of peers (try ["*.example.com"])')
    return PeerNames(names)


Peers = Annotated[PeerNames, BeforeValidator(_peers)]


class TLSTable(Table):
    """``tls = {...}`` in ``[listeners.NAME]``: with it the listener speaks nothing else."""

    certificate: Annotated[
        FilePath, About("FILE", "in PEM: the server's certificate first, behind it those that lead to its root")
    ]
    key: Annotated[FilePath, About("FILE", "in PEM, not encrypted: the key of that certificate")]
    client_ca: Annotated[
        FilePath | None,
        About("FILE", "in PEM: clients must show a certificate that one in it vouches for", default="nobody is asked"),
    ] = None
    peers: Annotated[
        Peers | None,
        About(
            "NAMES",
            "of those who may send, as their certificates have it: DNS names (the first label may be ``*``), IP "
            "addresses, ``SHA256:`` and a fingerprint",
            "needs ``client_ca``",
            "all that it vouches for",
        ),
    ] = None
    min_version: Annotated[MinVersion, About("1.2|1.3:", "the lowest version of TLS that is spoken")] = "1.2"

    @property
    def files(self) -> Files:
        """What is read from files."""
        return Files(self.certificate, self.key, self.client_ca, self.min_version)
