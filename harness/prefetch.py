"""What a profile needs of the hub: its experts, into the hub's own cache, and its benchmarks' files, into a folder.

The folder is laid out as ``--ablation-data`` reads it; ``sources.json`` in it says which commit each file is of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.doctor import HUB
from harness.errors import LayerswapError
from harness.evaluation.data import CODES, PLACES, asked, find
from harness.files import replace_bytes, replace_text
from harness.places import is_hub_id, is_placeholder, origin

if TYPE_CHECKING:
    from harness.profiles import Profile

# Files of the hub's data sets, and where they go; of several for one split, the first that is there.
_PART = "00000-of-00001.parquet"
FILES: dict[str, tuple[tuple[tuple[str, str], ...], ...]] = {
    "mgsm": ((("mgsm_LANG.tsv", "mgsm/mgsm_LANG.tsv"), (f"LANG/test-{_PART}", f"mgsm/LANG/test-{_PART}")),),
    "belebele": ((("data/CODE.jsonl", "belebele/CODE.jsonl"),),),
    "flores": tuple(
        tuple((f"{split}/CODE.{ending}", f"flores_plus/{split}/CODE.{ending}") for ending in ("parquet", "jsonl"))
        for split in ("dev", "devtest")
    ),
    "mbpp": tuple(((f"full/{split}-{_PART}", f"mbpp/full/{split}-{_PART}"),) for split in ("prompt", "test")),
    "mmlu": tuple(((f"all/{split}-{_PART}", f"mmlu/all/{split}-{_PART}"),) for split in ("dev", "test")),
}


class _Refused(LayerswapError):
    """The hub was reached, and does not give this."""


@dataclass(frozen=True)
class _Hub:
    """A data set at the commit that its name stood for when it was first asked."""

    name: str
    commit: str
    files: frozenset[str]


def prefetch(profile: Profile, say: Callable[[str], None]) -> list[str]:
    """Downloads what is not there yet and says, a line each, what is there now; returns what the hub refused.

    Raises :class:`LayerswapError` if the hub cannot be reached.
    """
    failed: list[str] = []
    for name, place in profile.experts.items():
        if is_placeholder(place):
            say(f"{name}: {place} is a placeholder, left out")
            continue
        try:
            say(f"{name}: {_expert(profile, name, place)}")
        except _Refused as error:
            failed.append(f"expert {name}: {error}")
    folder = profile.data_folder
    if profile.tasks != "real" or folder is None:
        say(_without(profile))
        return failed
    known: dict[str, _Hub] = {}
    tasks = dict.fromkeys(asked(column.task) for spec in profile.benchmarks.values() for column in spec.columns)
    for benchmark, languages in tasks:
        try:
            say(_benchmark(folder, benchmark, languages, known))
        except _Refused as error:
            failed.append(f"{benchmark} {'-'.join(languages)}: {error}")
    return failed


def _without(profile: Profile) -> str:
    if profile.tasks == "real":
        return "benchmarks: left out, since there is no folder for their files: give --data FOLDER"
    own = profile.tasks in ("embedded", "small")
    return f"benchmarks: {'they ship with the package' if own else 'their tasks fetch their own data'}"


def _expert(profile: Profile, name: str, place: str) -> str:
    if not is_hub_id(place, profile.folder):
        profile.expert_path(name)  # converted, if it has to be
        return place
    from huggingface_hub import HfApi

    repository, _, revision = place.partition("@")
    with _asking(repository):
        HfApi().model_info(repository, revision=revision or None, timeout=20)
    return origin(place, profile.expert_path(name))


def _benchmark(folder: Path, benchmark: str, languages: tuple[str, ...], known: dict[str, _Hub]) -> str:
    from harness.evaluation.real import load

    made = [path for language in languages for path in _files(folder, benchmark, language, known)]
    documents = len(load(benchmark, "-".join(languages), str(folder))["test"])
    spoken = any(word in str(FILES[benchmark]) for word in ("LANG", "CODE"))
    named = f"{benchmark} {'-'.join(languages)}" if spoken else benchmark
    came = f": {', '.join(made)}" if made else ": there already"
    return f"{named}{came}, {documents:,} documents"


def _files(folder: Path, benchmark: str, language: str, known: dict[str, _Hub]) -> list[str]:
    """Downloads the files of a benchmark in a language that are not there, and returns their names in the folder."""
    wanted = [
        [tuple(n.replace("LANG", language).replace("CODE", CODES[language]) for n in pair) for pair in choice]
        for choice in FILES[benchmark]
    ]
    missing = [choice for choice in wanted if not any((folder / target).is_file() for _, target in choice)]
    if not missing or _given(folder, benchmark, language, {target for choice in wanted for _, target in choice}):
        return []
    hub = known.get(benchmark) or known.setdefault(benchmark, _resolve(HUB[benchmark]))
    made = []
    for choice in missing:
        pair = next((pair for pair in choice if pair[0] in hub.files), None)
        if pair is None:
            raise _Refused(f"{hub.name}@{hub.commit} has no file {' or '.join(name for name, _ in choice)}")
        replace_bytes(folder / pair[1], _download(hub, pair[0]).read_bytes())
        made.append(pair[1])
        _note(folder, pair[1], f"{hub.name}@{hub.commit}")
    return made


def _given(folder: Path, benchmark: str, language: str, targets: set[str]) -> bool:
    """Whether all splits are there in files that a person has put there."""
    found = [find(folder, benchmark, split, language) for split in PLACES[benchmark]]
    ours = {(folder / target) for target in targets} | {(folder / target).parent for target in targets}
    return all(path is not None and path not in ours for path in found)


def _resolve(name: str) -> _Hub:
    from huggingface_hub import HfApi

    with _asking(name):
        info = HfApi().dataset_info(name, timeout=20)
    return _Hub(name, str(info.sha), frozenset(file.rfilename for file in info.siblings or ()))


def _download(hub: _Hub, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _asking(hub.name):
        return Path(hf_hub_download(hub.name, file, repo_type="dataset", revision=hub.commit))


@contextmanager
def _asking(name: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        yield
    except GatedRepoError as error:
        raise _Refused(f"{name} has a licence to be accepted on the hub; then log in with: hf auth login") from error
    except HfHubHTTPError as error:
        raise _Refused(f"the hub does not give {name} ({type(error).__name__}: {_first(error)})") from error
    except Exception as error:  # whatever the network or the client raises
        raise LayerswapError(
            f"the hub cannot be reached for {name} ({type(error).__name__}: {_first(error)}): prefetch needs a network"
        ) from error


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _note(folder: Path, name: str, source: str) -> None:
    path = folder / "sources.json"
    known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    replace_text(path, json.dumps(dict(sorted({**known, name: source}.items())), indent=1) + "\n")
