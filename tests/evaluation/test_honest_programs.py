from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.evaluation.sandbox import Sandbox, no_sandbox
from tests.evaluation.honest import honest_programs


@pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())
def test_no_honest_program_fails_and_none_passes_with_another_answer() -> None:
    programs = list(honest_programs())
    assert len(programs) == 500
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.size) as pool:
        outcomes = list(pool.map(lambda asked: sandbox.run(*asked), programs))
        wrong = [pool.submit(sandbox.run, source, [*tests, "assert f != f"]) for source, tests in programs[:80]]
        assert not any(outcome.result().passed for outcome in wrong)
    failed = [
        (program, outcome.reason) for program, outcome in zip(programs, outcomes, strict=True) if not outcome.passed
    ]
    assert not failed
