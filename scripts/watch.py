"""`infdiff watch` from a checkout, which need not be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infdiff.commands import script

if __name__ == "__main__":
    script("watch")
