from __future__ import annotations

import pytest

from harness.evaluation.grid import Grid
from harness.options import _bytes
from tests.plugin.tables import FAMILY, values


@pytest.fixture
def budgets(monkeypatch):
    """The memory that every grid was given, in bytes."""
    found: list[int] = []
    make = Grid.__init__

    def noting(self, settings, *rest):
        found.append(settings.memory)
        make(self, settings, *rest)

    monkeypatch.setattr(Grid, "__init__", noting)
    return found


def test_the_option_wins_over_its_ini_twin_which_wins_over_two_gigabytes(ablate, pytester, budgets):
    assert ablate("--ablation-no-cache").ret == 0
    pytester.makeini("[pytest]\nablation_memory = 300MB\n")
    assert ablate("--ablation-no-cache").ret == 0
    assert ablate("--ablation-no-cache", "--ablation-memory=1.5 GB").ret == 0
    assert budgets == [2_000_000_000, 300_000_000, 1_500_000_000]


@pytest.mark.parametrize("size", ["0", "0GB", "-1GB", "much", "2 gigabytes", "1e9", "GB", "0.0001k"])
def test_what_is_no_size_is_refused(ablate, size):
    result = ablate(f"--ablation-memory={size}")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: --ablation-memory is '{size}': expected a size such as 500MB or 2GB"])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("12B", 12),
        ("3k", 3000),
        ("500MB", 5 * 10**8),
        ("1.5G", 15 * 10**8),
        ("1T", 10**12),
        ("1KiB", 1024),
        ("2GiB", 2 * 1024**3),
        ("2gb", 2 * 10**9),
        (" 2 GB ", 2 * 10**9),
    ],
)
def test_sizes_are_read_in_either_unit(text, size):
    assert _bytes(text) == size


def test_a_small_budget_changes_no_score(ablate, pytester):
    assert ablate("--ablation-no-cache", "--ablation-report=large", suite=FAMILY).ret == 0
    assert ablate("--ablation-no-cache", "--ablation-memory=1k", "--ablation-report=small", suite=FAMILY).ret == 0
    assert values(pytester.path / "large" / "latest") == values(pytester.path / "small" / "latest")
