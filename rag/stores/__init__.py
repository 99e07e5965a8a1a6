"""Vector stores: where vectors live and are searched. ``base.py`` holds the protocol and the table."""
