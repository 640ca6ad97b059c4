"""Benchmarks that are no part of the package: run from a clone, see bench/README.md."""
