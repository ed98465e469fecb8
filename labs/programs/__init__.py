"""What the labs run in child processes: senders, receivers and hosts, as one writes them first and as one should."""
