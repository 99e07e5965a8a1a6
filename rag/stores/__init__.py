"""Vector stores, BM25, the text store and the vector cache. ``base.py`` has the protocol and table of vector stores."""
