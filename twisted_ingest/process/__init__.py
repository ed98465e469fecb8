"""The process as a whole: what the daemon does and an application that embeds the service does not."""
