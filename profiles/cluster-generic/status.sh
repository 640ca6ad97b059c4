#!/usr/bin/env bash
# How a job of PBS does, in the words that Snakemake asks for: success, failed or running.
#   status.sh JOB
# EDIT for another scheduler. An answer that cannot be had counts as running: it is asked for again.
set -u
qstat -x -f "$1" 2>/dev/null | awk -F ' = ' '
  /^ *job_state/ { state = $2 }
  /^ *Exit_status/ { code = $2 }
  END { print state != "F" ? "running" : code == 0 ? "success" : "failed" }
'
