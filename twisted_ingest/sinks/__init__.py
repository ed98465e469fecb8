"""Final takers of records. They know `ISink` and `Batch`, nothing of connections."""
