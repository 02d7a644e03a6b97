"""`python -m tfmm`."""

from __future__ import annotations

from tfmm.cli import main

if __name__ == "__main__":
    main()
