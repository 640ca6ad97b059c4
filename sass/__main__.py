"""``python -m sass`` is the command ``sass``."""

import sys

from sass.cli import main

sys.exit(main())
