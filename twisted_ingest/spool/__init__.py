"""A durable queue in front of any sink. What lies on the disk, byte by byte: ``docs/spool-format.md``."""
