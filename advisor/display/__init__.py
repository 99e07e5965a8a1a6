"""What the terminal shows (uses rich)."""
