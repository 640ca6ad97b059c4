"""The cluster that the tests run on is a real one: it queues, places, counts GPUs and kills."""

import time
from pathlib import Path


def test_jobs_land_in_the_partition_and_on_the_gpus_that_they_ask_for(slurm):
    two_nodes = ("srun", "-Q", "-p", "gpu", "-N2", "--gpus-per-node=2")
    assert slurm.ask(*two_nodes, "printenv", "CUDA_VISIBLE_DEVICES").split() == ["0,1", "0,1"]
    assert slurm.ask("srun", "-Q", "printenv", "SLURMD_NODENAME").strip() in ("c1", "c2")


def test_a_job_over_its_memory_is_killed(slurm):
    greedy = "python3 -c 'import time; kept = bytearray(b\"x\") * 400_000_000; time.sleep(30)'"
    job = slurm.ask("sbatch", "--parsable", "--mem=200", "--output=/dev/null", f"--wrap={greedy}").strip()
    while not (state := slurm.ask("squeue", "-h", "-t", "all", "-o", "%T", "-j", job).strip()) or state in (
        "PENDING",
        "RUNNING",
        "COMPLETING",
    ):
        time.sleep(0.5)
    assert state in ("FAILED", "OUT_OF_MEMORY")


def test_what_has_left_its_job_ends_with_the_cluster(another):
    with another() as other:
        job = "setsid nohup sh -c 'echo $$ > pid; exec sleep 600' > /dev/null 2>&1 & sleep 1"
        other.ask("sbatch", "--wait", f"--chdir={other.folder}", "--output=/dev/null", f"--wrap={job}")
        left = Path("/proc", (other.folder / "pid").read_text().strip())
        assert (left / "comm").read_text() == "sleep\n"
    assert not left.exists() or "Z" in (left / "stat").read_text().split()[2]
