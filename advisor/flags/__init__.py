"""What the verbs take: records whose fields are flags, each listed once with its type, help and default; no work."""
