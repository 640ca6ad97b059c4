"""The cluster that the tests run on is a real one: it queues, places, counts GPUs and kills."""

import time


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
