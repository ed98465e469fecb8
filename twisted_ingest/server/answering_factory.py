"""
What builds connections whose peers are answered.
"""

from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.server.answering import AnsweringConnection
from twisted_ingest.server.factory import ConnectionFactory


class AnsweringFactory(ConnectionFactory):
    """Builds connections whose peers are told what is safe; see `ConnectionFactory`."""

    answers = True
    connections: dict[int, AnsweringConnection]  # type: ignore[assignment]

    def open_lane(self) -> AnsweringLane:
        """Open the lane of a session."""
        return self._intake.open_answering_lane(self.route)

    def unanswered(self) -> tuple[int, int]:
        """Recount, from the live sessions, the frames that wait for their answer, and the bytes of their records."""
        live = self.connections.values()
        return sum(session.unanswered for session in live), sum(session.lane.in_flight for session in live)
