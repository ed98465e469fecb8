"""
Tell twistd about the ``ingest`` command.

Every twistd on the machine imports this module whenever it renews its plugin
cache, so it imports nothing of ours: the service is named by a string.
"""

from twisted.application.service import ServiceMaker

ingest = ServiceMaker(
    "twisted-ingest",
    "twisted_ingest.tap",
    "Receive log lines over TCP, keep every one of them, and show it.",
    "ingest",
)
