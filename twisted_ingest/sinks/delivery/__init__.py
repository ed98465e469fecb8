"""What sinks across a network have in common: requests under way, connections, answers, and what is counted."""
