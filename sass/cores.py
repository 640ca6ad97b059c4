"""How numerical libraries share cores, said before any of them is loaded: each reads it once."""

import os


def share_cores(threads: int) -> None:
    """Keep libraries to so many threads, and have those that wait sleep; what the user has set stands.

    A thread of OpenMP that waits for another spins, by default. Where other jobs run on its core, the one it
    waits for then gets no time, and two threads are slower than one.
    """
    wanted = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": threads,  # OpenBLAS and MKL go by it, too
        "ZARR_THREADING__MAX_WORKERS": threads,
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, str(value))
