"""
The labs: what TCP really does, with this server and without, measured on this machine.

``python -m labs NAME`` from the checkout; docs/labs/README.md shows what one run measured.
"""
