"""A short part of ``make fuzz``: of mutated files, each reader takes some and refuses others by name."""

import numpy as np
import pytest
from fuzz import TARGETS, fuzz, mutated

TRIES = {"pixels": 40, "headers": 150}
"""Inputs of each target; 300 where nothing is said."""


@pytest.mark.filterwarnings("ignore")  # what mutated files warn of is no concern of this test
@pytest.mark.parametrize("name", TARGETS)
def test_a_mutated_file_is_read_or_refused_with_our_own_error(name, tmp_path):
    tally = fuzz(name, tmp_path, seed=20, goes_on=lambda so_far: so_far.tried < TRIES.get(name, 300))
    assert 0 < tally.refused < tally.tried


def test_mutations_change_something_and_go_by_the_seed():
    seeds = [bytes(range(256)), b"abc" * 50]
    first, again, other = (
        [mutated(seeds[0], seeds, rng) for _ in range(50)] for rng in map(np.random.default_rng, (1, 1, 2))
    )
    assert first == again != other
    assert sum(data != seeds[0] for data in first) > 40
