from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging.arithmetic import linear
from harness.merging.streams import _linear
from harness.merging.weights import total_weight

WEIGHTS = st.lists(st.floats(0.01, 10), min_size=1, max_size=4)


def test_the_sum_is_rounded_at_every_step():
    assert total_weight([0.3, 0.3, 0.3]) == float(np.nextafter(np.float32(0.9), np.float32(1)))
    assert total_weight([0.25, 0.75]) == 1.0


@given(WEIGHTS)
def test_the_sum_is_torchs(weights):
    assert total_weight(weights) == float(torch.tensor(weights).sum())


@pytest.mark.parametrize("weights", [[0.3, 0.3, 0.3], [0.1, 0.2, 0.3], [0.7, 0.4]])
def test_averages_in_torch_and_in_numpy_are_equal(weights):
    parts = [torch.randn(1000, generator=torch.Generator().manual_seed(i)) for i, _ in enumerate(weights)]
    assert torch.equal(linear(parts, weights), torch.from_numpy(_linear([p.numpy().copy() for p in parts], weights)))
