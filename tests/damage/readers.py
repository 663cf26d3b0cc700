"""Every reader of what strangers write, as a function of bytes: what fuzzing calls, and what replays its finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LayerswapError


@dataclass(frozen=True)
class Reader:
    """``read`` is given a file whose ``name`` is as it would be; ``seeds`` are sound ones below a workshop."""

    name: str
    seeds: tuple[str, ...]
    read: Callable[[Path], object]


def _weights(path: Path) -> None:
    from harness.merging.claims import check_finite
    from harness.merging.headers import read_ranges

    check_finite(read_ranges(path))


def _index(path: Path) -> None:
    from harness.merging.headers import read_folder

    read_folder(path.parent)


def _config(path: Path) -> None:
    from harness.merging.claims import check_claims
    from harness.merging.headers import read_folder

    check_claims(path.parent, read_folder(path.parent))


def _tokenizer(path: Path) -> None:
    from harness.merging.preflight import describe_tokenizer

    describe_tokenizer(path.parent)


def _request(path: Path) -> None:
    from harness.recipe_files import read_request, request_text

    request = read_request(str(path))
    request_text(request)
    request.recipe.plan(32)


def _recipe(path: Path) -> None:
    from harness.recipe_text import parse_recipe

    recipe = parse_recipe(path.read_bytes().decode("utf-8", "replace"))
    assert parse_recipe(repr(recipe)) == recipe
    recipe.plan(32)


def _mergekit(path: Path) -> None:
    from harness.exchange.reading import read_mergekit
    from harness.recipe_files import request_text

    request_text(read_mergekit(path))


def _profile(path: Path) -> None:
    from harness.profiles import load_profile

    load_profile(str(path))


def _accepted(path: Path) -> None:
    from harness.gating.baselines import load_baselines

    load_baselines(path)


def _results(path: Path) -> None:
    from harness.reporting.report import read_results

    read_results(path.parent)


def _samples(path: Path) -> None:
    from harness.reporting.samples import read_samples

    read_samples(path)


def _data(load: str, language: str) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        from harness.evaluation import real

        real.DOCUMENTS[load](next(parent for parent in path.parents if parent.name == "data"), language)

    return read


READERS = {
    reader.name: reader
    for reader in (
        Reader("safetensors", ("models/math/model.safetensors",), _weights),
        Reader("index", ("sharded/math/model.safetensors.index.json",), _index),
        Reader("config", ("models/math/config.json",), _config),
        Reader("tokenizer", ("models/math/tokenizer.json",), _tokenizer),
        Reader("toml", ("recipe.toml",), _request),
        Reader("yaml", ("recipe.yaml",), _request),
        Reader("recipe", ("recipe.txt",), _recipe),
        Reader("mergekit", ("mergekit.yaml",), _mergekit),
        Reader("profile", ("profile.toml",), _profile),
        Reader("baseline", ("before.json",), _accepted),
        Reader("results", ("reports/one/results.json",), _results),
        Reader("samples", ("reports/one/samples.jsonl.gz",), _samples),
        Reader("jsonl", ("data/belebele/swh_Latn.jsonl",), _data("belebele", "sw")),
        Reader("tsv", ("data/mgsm/mgsm_sw.tsv",), _data("mgsm", "sw")),
        Reader("csv", ("data/mmlu/test/high_school_physics_test.csv",), _data("mmlu", "en")),
        Reader("programs", ("data/mbpp/mbpp.jsonl",), _data("mbpp", "en")),
    )
}


def put(reader: Reader, workshop: Path, data: bytes) -> Path:
    """Writes ``data`` where the reader's file lies in a workshop."""
    path = workshop / reader.seeds[0]
    path.write_bytes(data)
    return path


def survives(reader: Reader, path: Path) -> bool:
    """Whether the file was read; False for one clear error. Anything else is raised."""
    try:
        reader.read(path)
    except LayerswapError:
        return False
    return True
