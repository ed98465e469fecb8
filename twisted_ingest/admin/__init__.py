"""The operator's window: metrics, health, status and connections over HTTP."""
