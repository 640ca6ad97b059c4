"""Starting one process for each GPU."""

import sys

import pytest

from sass.errors import SassError
from sass.launch import command


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_gpu_or_none_is_a_plain_call(gpus):
    assert command(1, gpus, 8, ["train", "run"]) == [
        sys.executable,
        "-m",
        "sass",
        "train",
        "run",
        "--threads",
        "8",
    ]


def test_several_on_one_node_share_its_threads():
    words = command(1, 4, 8, ["train", "run"])
    assert words[1:3] == ["-m", "torch.distributed.run"] and "--nproc-per-node=4" in words
    assert words[-2:] == ["--threads", "2"]


def test_several_nodes_are_started_by_srun_and_meet_at_one_place():
    words = command(2, 8, 16, ["train", "run"])
    assert words[0] == "srun" and {"--nodes=2", "--gpus-per-node=4", "--cpus-per-task=16"} <= set(words)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d"} <= set(words)
    assert words[-2:] == ["--threads", "4"]


def test_gpus_that_do_not_fit_the_nodes_are_refused():
    with pytest.raises(SassError, match="3 GPUs cannot be shared evenly among 2 nodes"):
        command(2, 3, 8, ["train", "run"])
