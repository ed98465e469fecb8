"""How bytes become batches. Pure: bytes in, batches out; no Twisted, no clock, no logging."""
