from __future__ import annotations

import pytest

from harness.devices import choose, visible


@pytest.fixture
def driver(tmp_path):
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    return tmp_path / "gpus"


@pytest.mark.parametrize(
    ("value", "found"),
    [("0,1,2,3", "0123"), ("5, 3", "53"), ("2", "2"), ("", ""), ("-1", ""), ("1,-1,2", "1"), (None, "012")],
)
def test_the_gpus_that_the_caller_may_use(driver, value, found):
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert visible(environment, driver) == tuple(found)


def test_names_of_gpus_are_kept(driver):
    assert visible({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1"}, driver) == ("GPU-8932f937", "MIG-1")


def test_there_may_be_no_gpu(tmp_path):
    assert visible({}, tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("worker", "device", "before", "after"),
    [
        ("gw0", "cuda", "4,6", "4"),
        ("gw1", "cuda", "4,6", "6"),
        ("gw2", "cuda", "4,6", "4"),
        ("gw10", "cuda", None, "1"),
        ("gw1", "cuda:1", "4,6", "4,6"),
        ("gw1", "cpu", "4,6", "4,6"),
        ("gw1", "cuda", "", ""),
        ("master", "cuda", "4,6", "4,6"),
    ],
)
def test_a_worker_sees_one_of_them(driver, worker, device, before, after):
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    choose(worker, device, environment, driver)
    assert environment["CUDA_VISIBLE_DEVICES"] == after
