# Run with: twistd -ny ingest.tac

from twisted.application.service import Application
from twisted.internet import reactor

from twisted_ingest.config.load import load
from twisted_ingest.service import IngestService

application = Application("ingest")
IngestService(load("ingest.toml", {}, [], []), reactor).setServiceParent(application)
