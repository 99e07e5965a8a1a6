"""The local page of ``tunewise label``: one person labels the answers of a run in a browser."""
