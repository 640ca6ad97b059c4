"""Numerical libraries take no more threads than a command was given."""

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import json, os, sys
from sass.cli import main
assert not {"numpy", "torch", "zarr"} & set(sys.modules)  # they read it when they are loaded
main(["ingest", "nowhere", "--threads", "1"])
import torch, zarr
print(json.dumps([torch.get_num_threads(), zarr.config.get("threading.max_workers")]))
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize("own, threads", [({}, 1), ({"OMP_NUM_THREADS": "2"}, 2)], ids=["given", "own"])
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="libraries start no second thread on one core")
def test_libraries_keep_to_the_threads_of_the_command_unless_the_user_has_said(own, threads):
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("_THREADS", "_WORKERS", "_POLICY"))}
    call = [sys.executable, "-c", LOOK]
    done = subprocess.run(call, env=kept | own, capture_output=True, text=True, check=True)
    counts, policy = done.stdout.splitlines()
    assert json.loads(counts) == [threads, 1]
    assert policy == "PASSIVE"  # threads of OpenMP that wait do not keep others from their core
