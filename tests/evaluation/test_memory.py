from __future__ import annotations

import sys

import pytest

from harness.evaluation.memory import peak_bytes, reset_peak


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak cannot be reset")
def test_a_peak_is_of_what_ran_since_it_was_reset():
    block = bytearray(b"x" * (200 << 20))
    reset_peak("cpu")
    with_block = peak_bytes("cpu")
    del block
    reset_peak("cpu")
    assert with_block - peak_bytes("cpu") > 100 << 20
