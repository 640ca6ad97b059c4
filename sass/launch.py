"""One process for each GPU: a stage by itself, by torchrun, or by both srun and torchrun on several nodes.

python -m sass.launch --gpus 4 train results/mine              four processes on this machine
python -m sass.launch --gpus 8 --nodes 2 train results/mine    in a Slurm job of two nodes with four GPUs each
"""

import argparse
import os
import socket
import sys

from sass.errors import SassError


def command(nodes: int, gpus: int, threads: int, arguments: list[str]) -> list[str]:
    """Return the words that start ``sass`` with these arguments.

    Parameters
    ----------
    nodes
        On how many; more than one needs a Slurm job that has them, and is called on the first of them.
    gpus
        On all nodes together; with none or one, a single process runs.
    threads
        That a node gives to its processes, who share them.
    arguments
        The stage and what it is told.

    Raises
    ------
    SassError
        The GPUs cannot be shared evenly among the nodes.
    """
    if gpus % nodes:
        raise SassError(
            f"{gpus} GPUs cannot be shared evenly among {nodes} nodes; set the resource gpu of train to a "
            f"multiple of {nodes}: it counts the GPUs of all nodes together"
        )
    each = gpus // nodes
    stage = ["-m", "sass", *arguments, "--threads", str(max(threads // max(each, 1), 1))]
    if gpus <= 1:
        return [sys.executable, *stage]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={each}"]
    if nodes == 1:
        return [*torchrun, "--standalone", *stage]
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    srun += [f"--cpus-per-task={threads}", f"--gpus-per-node={each}"]
    meeting = [
        "--rdzv-backend=c10d",
        "--rdzv-id=sass",
        f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}",
    ]
    return [*srun, *torchrun, f"--nnodes={nodes}", *meeting, *stage]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def main() -> None:
    """Become the command that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m sass.launch", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the Slurm job (1)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs on all nodes together (0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each node (1)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the stage and what it is told")
    args = parser.parse_args()
    try:
        words = command(args.nodes, args.gpus, args.threads, args.arguments)
    except SassError as error:
        sys.exit(f"sass: {error}")
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # torchrun would set it too, and say so; a stage asks for threads
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
