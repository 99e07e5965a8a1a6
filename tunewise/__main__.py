"""Run the command line as `python -m tunewise`, in any folder."""

from __future__ import annotations

from advisor.cli import main

if __name__ == "__main__":
    main()
