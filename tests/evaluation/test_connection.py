"""Connecting to a Ray cluster whose own start of a process fails now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.evaluation.connection import DIED, TRIES, started


def ray_that_raises(errors):
    """A Ray whose ``init`` raises these, one a call, and then connects; and the calls that it got."""
    calls = []

    def init(address, **options):
        calls.append((address, options))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]

    return SimpleNamespace(init=init), calls


def test_a_process_that_died_as_it_was_forked_is_asked_for_again():
    ray, calls = ray_that_raises([ConnectionAbortedError(f"RuntimeError: {DIED}. See a log")] * (TRIES - 1))
    started(ray, "ray://there:1", {"namespace": "n"})
    assert calls == [("ray://there:1", {"namespace": "n"})] * TRIES


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ConnectionAbortedError(DIED), TRIES),
        (ConnectionError("versions differ"), 1),
        (RuntimeError(DIED), 1),
    ],
)
def test_what_goes_on_failing_or_is_another_failure_is_raised(error, tries):
    ray, calls = ray_that_raises([error] * (TRIES + 1))
    with pytest.raises(type(error), match=str(error)):
        started(ray, "ray://there:1", {})
    assert len(calls) == tries
