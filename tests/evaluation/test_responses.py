from __future__ import annotations

import json
import math
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation.responses import FILE_NAME, Store, default_path
from harness.evaluation.stored import key_of, pack, run_of, seal, unpack, unseal
from tests.evaluation.stores import ROOT, answer, cell, fill, request, variant, wrong_and_known

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE_NAME


@given(JSON)
def test_a_value_comes_back_as_json_has_it(value):
    assert json.dumps(unpack(pack(value))) == json.dumps(value)


@given(st.floats(), st.booleans())
def test_a_log_likelihood_comes_back_bit_for_bit_in_nine_bytes(number, greedy):
    packed = pack((number, greedy))
    back = unpack(packed)
    assert len(packed) == 9
    assert struct.pack("<d", back[0]) == struct.pack("<d", number)
    assert back[1] is greedy


@given(st.text(st.characters()), st.text(st.characters()))
def test_texts_with_any_character_come_back_and_have_keys_of_their_own(first, second):
    assert unpack(pack(first)) == first
    assert (key_of(first) == key_of(second)) == (first == second)


def test_whole_numbers_stay_whole():
    assert [type(part) for part in unpack(pack([1, True]))] == [int, bool]


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_changed_bit_passes_the_checksum(body, data):
    place, run = key_of("place"), run_of("run")
    sealed = seal(place, run, body)
    assert unseal(place, run, sealed) == body
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    assert unseal(place, run, bytes(changed)) is None
    assert unseal(place, run ^ 1, sealed) is None
    assert unseal(key_of("elsewhere"), run, sealed) is None


@pytest.mark.parametrize("sealed", [None, 3, "text", b"", b"12345678"])
def test_what_is_no_body_does_not_pass(sealed):
    assert unseal(b"", 1, sealed) is None
    assert unseal(b"", "text", sealed) is None


def test_what_was_kept_is_there_for_the_next_process(path):
    fill(path)
    store = Store(path)
    assert wrong_and_known(store) == (0, 3 * 400 + 12)
    assert store.responses(variant(0), [request(1), "unknown"]) == {request(1): answer(0, 1)}
    assert store.responses(variant(9), [request(1)]) == {}
    assert store.responses(variant(0), []) == {}
    assert store.document("slots", variant(0)) is None
    assert store.messages == []


def test_the_later_value_is_the_one_served(path):
    store = Store(path)
    for text in ("old", "new"):
        store.add_responses("v", {"r": text})
        store.add_document("cell", "k", text)
    assert store.responses("v", ["r"]) == {"r": "new"}
    assert store.document("cell", "k") == "new"


def test_a_batch_with_an_answer_that_json_does_not_know_is_not_kept(path):
    store = Store(path)
    with pytest.raises(TypeError):
        store.add_responses("v", {"a": "text", "b": object()})
    assert store.responses("v", ["a", "b"]) == {}


def test_nan_and_infinity_are_kept(path):
    store = Store(path)
    store.add_responses("v", {"a": [math.nan, True], "b": [-math.inf, False], "c": [-0.0, True]})
    found = Store(path).responses("v", ["a", "b", "c"])
    assert math.isnan(found["a"][0])
    assert found["b"] == [-math.inf, False]
    assert math.copysign(1, found["c"][0]) == -1


def test_a_refreshing_run_is_served_only_what_its_own_processes_wrote(path):
    fill(path, run="before")
    first, second = Store(path, refresh=True, run="now"), Store(path, refresh=True, run="now")
    assert wrong_and_known(first) == (0, 0)
    first.add_responses(variant(0), {request(1): answer(0, 1)})
    first.add_document("cell", variant(3), cell(3))
    assert wrong_and_known(second) == (0, 2)
    assert wrong_and_known(Store(path, refresh=True, run="later")) == (0, 0)
    assert wrong_and_known(Store(path)) == (0, 3 * 400 + 12)


def test_a_refresh_does_not_go_by_the_clock(path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(time, "time", lambda: 4e9)
        fill(path, run="before")
    store = Store(path, refresh=True)
    assert wrong_and_known(store) == (0, 0)
    store.add_responses("v", {"r": "text"})
    assert store.responses("v", ["r"]) == {"r": "text"}


def test_being_used_is_noted_once_a_day(path, monkeypatch):
    fill(path)
    days = "SELECT (SELECT used FROM variants LIMIT 1), (SELECT used FROM documents LIMIT 1)"
    monkeypatch.setattr(time, "time", lambda: 86400 * 30_000.5)
    store = Store(path)
    wrong_and_known(store)
    reader = sqlite3.connect(path)
    assert reader.execute(days).fetchone() == (30_000, 30_000)
    before = reader.execute("PRAGMA data_version").fetchone()
    wrong_and_known(store)
    assert reader.execute("PRAGMA data_version").fetchone() == before
    reader.close()


def test_the_path_is_the_users_unless_a_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYERSWAP_CACHE", str(tmp_path))
    assert default_path() == tmp_path / FILE_NAME
    monkeypatch.setenv("LAYERSWAP_CACHE", "")
    assert default_path().parent.name == "pytest-layerswap"


def test_opening_imports_neither_torch_nor_lm_eval(path):
    code = "Store(Path(sys.argv[1])).close(); print([m for m in ('torch', 'lm_eval', 'numpy') if m in sys.modules])"
    program = f"import sys\nfrom pathlib import Path\nfrom harness.evaluation.responses import Store\n{code}"
    out = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
