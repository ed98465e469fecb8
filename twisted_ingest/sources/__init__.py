"""Where records come from, as the service sees it: what it starts, drains and asks."""
