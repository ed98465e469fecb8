"""Every observable fact: events that log and count, the log itself, the metrics."""
