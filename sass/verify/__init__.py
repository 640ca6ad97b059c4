"""What stands of a run, held against what its stages wrote down: every fault by name, and its repair."""
