from __future__ import annotations

from harness.evaluation.grid import Grid


def test_what_is_no_size_is_refused(ablate):
    result = ablate("--ablation-disk=much")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-disk is 'much': expected a size such as 500MB or 2GB"])


def test_the_option_wins_over_its_ini_twin_which_wins_over_100_gigabytes(ablate, pytester, monkeypatch):
    found: list[int] = []
    make = Grid.__init__

    def noting(self, settings, *rest):
        found.append(settings.disk)
        make(self, settings, *rest)

    monkeypatch.setattr(Grid, "__init__", noting)
    assert ablate().ret == 0
    pytester.makeini("[pytest]\nablation_disk = 30GB\n")
    assert ablate().ret == 0
    assert ablate("--ablation-disk=1 TB").ret == 0
    assert found == [10**11, 3 * 10**10, 10**12]
