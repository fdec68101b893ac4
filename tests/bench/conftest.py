"""Let tests import `bench`, which is run from the repository and installed nowhere."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent))
