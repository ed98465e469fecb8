"""
The doubles we ship: a transport that honours pause, sinks that record, stall or fail, lent bytes, receivers, a rig.

Twisted's own doubles cannot show back-pressure: `StringTransport` never reads, and `iosim` ignores a pause.
"""

from twisted_ingest.testing.lending import Lender
from twisted_ingest.testing.receiver import ReceiverConnection, ScriptedReceiver
from twisted_ingest.testing.rig import Rig
from twisted_ingest.testing.sinks import FlakySink, MemorySink, Mode, ScriptedSink, StalledSink
from twisted_ingest.testing.transport import PumpTransport

__all__ = [
    "FlakySink",
    "Lender",
    "MemorySink",
    "Mode",
    "PumpTransport",
    "ReceiverConnection",
    "Rig",
    "ScriptedReceiver",
    "ScriptedSink",
    "StalledSink",
]
