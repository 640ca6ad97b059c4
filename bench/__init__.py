"""Benchmarks that are no part of the package: run from a clone, see bench/README.md."""

from os import environ

environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `sass.cores` does, before a library is loaded
