"""The thread that writes: what it writes to, in what order, and what it does in trouble; for files and the spool."""
