"""The device that computes, said in the log of the job: a GPU that is not used is a day lost in silence."""

import os
import sys

import torch


def computing_device(stage: str) -> torch.device:
    """Return the GPU, or the CPU where torch sees none; say so, and what to do if there should be one."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    among = f" in each of {processes} processes" if processes > 1 else ""
    if torch.cuda.is_available():
        print(f"{stage}: computes on {torch.cuda.get_device_name()}{among}", file=sys.stderr)
        return torch.device("cuda")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    unused = (
        f", though the job was given GPU {given}: torch {torch.__version__} sees none; install a build of "
    )
    unused += "it for this driver (docs/hpc.md), or ask for no GPU"
    print(f"{stage}: computes on the CPU{among}{unused if given else ''}", file=sys.stderr)
    return torch.device("cpu")
