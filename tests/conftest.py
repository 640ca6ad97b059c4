"""Settings for all tests."""

import os

# numerical libraries on several threads each fight over cores; tests that need threads ask for them
os.environ.setdefault("OMP_NUM_THREADS", "1")
