"""The real hub client, in processes of its own (it reads its settings once), against a local server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.prefetch import FILES
from harness.profiles import load_profile
from tests.evaluation.published import CODES, QUESTIONS, lines, write_all
from tests.hub import COMMIT, Hub, serving

PROFILE = """
name = "mine"
tasks = "real"
[experts]
base = "org/base@v1"
math = "<an expert>"
language = "org/base"
[benchmarks.mgsm]
columns = [
  { name = "mgsm sw", task = "real_mgsm_cot_sw", metric = "exact_match", filter = "answer" },
  { name = "mgsm te", task = "real_mgsm_direct_te", metric = "exact_match", filter = "answer" },
]
[benchmarks.belebele]
columns = [{ name = "belebele sw", task = "real_belebele_sw", metric = "acc" }]
[benchmarks.flores]
columns = [{ name = "flores en-sw", task = "real_flores_en-sw", metric = "sentence_chrf++", graded = true }]
[benchmarks.mbpp]
columns = [{ name = "mbpp", task = "real_mbpp", metric = "pass_at_1" }]
[benchmarks.mmlu]
columns = [{ name = "mmlu", task = "real_mmlu", metric = "acc" }]
"""
LAYERS = "import sys; from harness.merging.storage import read_depth; from harness.profiles import load_profile\n"


def parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def hub(tmp_path, tiny_profile) -> Hub:
    """Data sets with files named as on the hub, and a model that also has a pickle and a script."""
    files, root = write_all(tmp_path / "published"), tmp_path / "hub"
    for language, (question, number) in QUESTIONS.items():
        code = CODES[language]
        if language == "te":
            rows: list[dict[str, object]] = [{"question": question, "answer_number": int(number)}]
            parquet(root / "mgsm" / "te" / "test-00000-of-00001.parquet", rows)
        else:
            lines(root / "mgsm" / f"mgsm_{language}.tsv", [f"{question}\t{number}"])
        lines(
            root / "belebele" / "data" / f"{code}.jsonl",
            (files / "belebele" / f"{code}.jsonl").read_text().split("\n")[:2],
        )
        for split in ("dev", "devtest"):
            parquet(root / "flores" / split / f"{code}.parquet", [{"text": f"{split} {n}."} for n in range(6)])
    programs = [json.loads(line) for line in (files / "mbpp" / "mbpp.jsonl").read_text().split("\n") if line]
    for split, chosen in (("prompt", programs[:3]), ("test", programs[3:])):
        parquet(root / "mbpp" / "full" / f"{split}-00000-of-00001.parquet", chosen)
    question = {"question": "What?", "subject": "physics", "choices": ["1", "2", "3", "4"], "answer": 2}
    for split in ("dev", "test"):
        parquet(root / "mmlu" / "all" / f"{split}-00000-of-00001.parquet", [question])
    shutil.copytree(load_profile(str(tiny_profile)).expert_path("base"), root / "base")
    for unwanted in ("pytorch_model.bin", "modeling.py"):
        (root / "base" / unwanted).write_text("no", encoding="utf-8")
    names = {"mgsm": "juletxara/mgsm", "belebele": "facebook/belebele", "flores": "openlanguagedata/flores_plus"}
    names |= {"mbpp": "google-research-datasets/mbpp", "mmlu": "cais/mmlu"}
    return Hub({"org/base": root / "base"} | {f"datasets/{name}": root / short for short, name in names.items()})


@pytest.fixture
def run(tmp_path):
    """Runs Python in a process that takes ``url`` for the hub, and has a cache of its own."""

    def run(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        settings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}
        keep = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        return subprocess.run(
            [sys.executable, *arguments], env=keep | settings, cwd=tmp_path, capture_output=True, text=True
        )

    return run


def test_what_a_profile_needs_is_there_afterwards_without_a_network(hub, run, tmp_path):
    (tmp_path / "mine.toml").write_text(PROFILE, encoding="utf-8")
    command = ("-m", "harness", "prefetch", "mine.toml", "--data", "data")
    with serving(hub):
        hub.gated.add("datasets/openlanguagedata/flores_plus")
        done = run(hub.url, *command)
        assert done.stdout.splitlines() == [
            f"base: org/base@{COMMIT}",
            "math: <an expert> is a placeholder, left out",
            f"language: org/base@{COMMIT}",
            "mgsm sw: mgsm/mgsm_sw.tsv, 1 documents",
            "mgsm te: mgsm/te/test-00000-of-00001.parquet, 1 documents",
            "belebele sw: belebele/swh_Latn.jsonl, 2 documents",
            "mbpp: mbpp/full/prompt-00000-of-00001.parquet, mbpp/full/test-00000-of-00001.parquet, 2 documents",
            "mmlu: mmlu/all/dev-00000-of-00001.parquet, mmlu/all/test-00000-of-00001.parquet, 1 documents",
        ]
        assert done.stderr.splitlines() == [
            "error: flores en-sw: openlanguagedata/flores_plus has a licence to be accepted on the hub; "
            "then log in with: hf auth login"
        ]
        assert done.returncode == 1
        # One file of two: what a kill leaves, and what reading alone would not notice.
        (tmp_path / "data" / "mbpp" / "full" / "prompt-00000-of-00001.parquet").unlink()
        hub.gated.clear()
        before = len(hub.asked)
        done = run(hub.url, *command)
        assert done.returncode == 0, done.stderr
        assert "mgsm sw: there already, 1 documents" in done.stdout
        assert "mbpp: mbpp/full/prompt-00000-of-00001.parquet, 2 documents" in done.stdout
        assert "flores en-sw: flores_plus/dev/eng_Latn.parquet" in done.stdout
        asked = " ".join(hub.asked[before:])
        assert "juletxara" not in asked
        assert not any(name in " ".join(hub.asked) for name in ("pytorch_model.bin", "modeling.py"))
    sources = json.loads((tmp_path / "data" / "sources.json").read_text("utf-8"))
    assert sources["mgsm/mgsm_sw.tsv"] == f"juletxara/mgsm@{COMMIT}"
    assert len(sources) == 11
    expert = run(hub.url, "-c", LAYERS + "print(read_depth(load_profile('mine.toml').expert_path('base')))")
    assert expert.stdout == "4\n", expert.stderr


def test_without_a_network_there_is_one_error(run, tmp_path):
    (tmp_path / "mine.toml").write_text(PROFILE, encoding="utf-8")
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run("http://127.0.0.1:9", "-m", "harness", "prefetch", "mine.toml", "--data", "data", **more)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the hub cannot be reached for org/base (")
        assert done.stderr.endswith("): prefetch needs a network\n")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "data").exists()


def test_what_needs_no_network_asks_none(tiny_profile, tmp_path, capsys, monkeypatch):
    from harness.cli import main

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: pytest.fail("the hub was asked"))
    assert main(["prefetch", str(tiny_profile)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["base: base", "math: math", "language: language", "benchmarks: they ship with the package"]
    local = PROFILE.replace("org/base@v1", "embedded:base").replace('"org/base"', '"embedded:language"')
    (tmp_path / "mine.toml").write_text(local, encoding="utf-8")
    assert main(["prefetch", str(tmp_path / "mine.toml"), "--data", str(write_all(tmp_path / "data"))]) == 0
    assert capsys.readouterr().out.count("there already") == 6
    assert main(["prefetch", str(tmp_path / "mine.toml")]) == 0
    assert "since there is no folder for their files: give --data FOLDER" in capsys.readouterr().out


def test_every_file_lands_where_the_benchmarks_are_read(tmp_path):
    from harness.evaluation.data import PLACES, find

    for benchmark, choices in FILES.items():
        for number in range(max(len(choice) for choice in choices)):
            folder = tmp_path / f"{benchmark}-{number}"
            for choice in choices:
                target = choice[min(number, len(choice) - 1)][1].replace("LANG", "sw").replace("CODE", "swh_Latn")
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                (folder / target).touch()
            assert all(find(folder, benchmark, split, "sw") for split in PLACES[benchmark]), folder
