"""Whether a profile can be run, without long work, and what that will cost."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.costs import Work, asked, estimate, joined, measure_speed, parameters
from harness.errors import LayerswapError, one_line
from harness.files import cache_folder
from harness.merging.claims import check_claims, check_finite
from harness.merging.headers import Range, read_folder
from harness.merging.storage import read_depth
from harness.places import is_hub_id, is_placeholder, ready

if TYPE_CHECKING:
    from harness.profiles import Profile

GB = 1e9
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
# The hub's data sets behind tasks/real, by benchmark.
HUB = {
    "mgsm": "juletxara/mgsm",
    "belebele": "facebook/belebele",
    "flores": "openlanguagedata/flores_plus",
    "mbpp": "google-research-datasets/mbpp",
    "mmlu": "cais/mmlu",
}


@dataclass
class Diagnosis:
    """What was found, a sentence each; ``sound`` if nothing is wrong."""

    lines: list[str] = field(default_factory=list)
    sound: bool = True

    @property
    def text(self) -> str:
        """All sentences, and a last one that sums up."""
        last = "nothing is wrong" if self.sound else "this profile cannot be run as it is"
        return "\n".join([*self.lines, last])

    def well(self, text: str) -> None:
        """Notes something that is as it should be."""
        self.lines.append(f"ok     {text}")

    def wrong(self, text: str) -> None:
        """Notes something that must be changed first."""
        self.lines.append(f"WRONG  {one_line(text)}")
        self.sound = False


def diagnose(profile: Profile, device: str, limit: int | None = None, variants: int = 50) -> Diagnosis:
    """Checks experts, their fit, memory and disk, the device, and the tasks' data; then estimates a run's cost."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    found = Diagnosis()
    folders = {name: path for name in profile.experts if (path := _expert(profile, name, found)) is not None}
    whole = {name: path for name, path in folders.items() if not (path / "adapter_config.json").is_file()}
    tensors = {name: read for name, path in whole.items() if (read := _headers(name, path, found)) is not None}
    if len(tensors) > 1:
        _fit({name: whole[name] for name in tensors}, found)
    _room(profile, tensors, found)
    _sandbox(profile, found)
    speed = _device(device, profile.dtype, found)
    work = joined([w for benchmark in profile.benchmarks for w in _tasks(profile, benchmark, limit, found)])
    if "base" in tensors and work.documents:
        layers = read_depth(whole["base"])
        _sizes(profile, layers, found)
        found.lines.append(f"cost   {estimate(work, layers, parameters(tensors['base']), variants, speed)}")
    return found


def _expert(profile: Profile, name: str, found: Diagnosis) -> Path | None:
    place = profile.experts[name]
    try:
        if is_placeholder(place):
            profile.expert_path(name)  # which says what to do
        path = ready(place, profile.folder, profile.dtype)
        if path is not None:
            found.well(f"expert {name}: {place}")
        elif is_hub_id(place, profile.folder):
            found.well(f"expert {name}: {_on_hub(place)}")
        else:
            found.well(f"expert {name}: {place} will be converted at its first use")
        return path
    except LayerswapError as error:
        text = str(error)
        found.wrong(text if text.startswith("profile") else f"expert {name}: {text}")
    return None


def _on_hub(place: str) -> str:
    from huggingface_hub import HfApi

    repository, _, revision = place.partition("@")
    try:
        HfApi().auth_check(repository)  # a licence may have to be accepted first
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True, timeout=20)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise LayerswapError(
            f"{place} is no local folder and the hub does not give it ({type(error).__name__}: {reason})"
        ) from error
    size = sum(file.size or 0 for file in info.siblings or () if file.rfilename.endswith(".safetensors"))
    if not size:
        raise LayerswapError(f"{place} has no safetensors weights on the hub")
    return f"{repository}@{info.sha}, {_size(size)} to be downloaded"


def _headers(name: str, path: Path, found: Diagnosis) -> dict[str, Range] | None:
    try:
        ranges = read_folder(path)
        check_claims(path, ranges)
        check_finite(ranges)
        return ranges
    except LayerswapError as error:
        found.wrong(f"expert {name}: {error}")
    return None


def _fit(folders: dict[str, Path], found: Diagnosis) -> None:
    from harness.merging.preflight import preflight

    try:
        preflight(dict(folders))
        found.well(f"{', '.join(folders)}: same architecture, depth, shapes, dtype and tokenizer")
    except LayerswapError as error:
        found.wrong(str(error))


def _sizes(profile: Profile, layers: int, found: Diagnosis) -> None:
    """Whether the profile's own swap fits the depth."""
    from harness.recipes import LayerSwap

    try:
        found.well(f"the default swap: {LayerSwap().plan(layers, profile.sizes).drawing}")
    except LayerswapError as error:
        found.wrong(f"[swap]: {error}")


def _room(profile: Profile, tensors: dict[str, dict[str, Range]], found: Diagnosis) -> None:
    """Whether experts fit into memory, on a CPU; for graphics memory the device's own error must do."""
    need = sum(parameters(t) * WIDTH.get(profile.dtype, 2) for t in tensors.values())
    free = _free_memory()
    if need and free:
        text = f"{len(tensors)} experts take {_size(need)} in {profile.dtype}, of {_size(free)} of free memory"
        found.well(text) if need < free else found.wrong(f"{text}: use a smaller dtype, or fewer experts")
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free
    text = f"{_size(disk)} of disk are free for answers and converted weights"
    found.well(text) if disk > GB else found.wrong(f"{text}: expected 1 GB; LAYERSWAP_CACHE names another folder")


def _sandbox(profile: Profile, found: Diagnosis) -> None:
    from harness.evaluation.sandbox import sandbox_facts

    if "mbpp" not in profile.benchmarks:
        return
    try:
        found.well(f"generated programs: {sandbox_facts()}")
    except LayerswapError as error:  # all else can be run
        found.lines.append(f"skip   benchmark mbpp: {error}; --ablation-unsafe-code runs its programs unconfined")


def _size(number: float) -> str:
    return f"{number / GB:.1f} GB" if number >= GB / 10 else f"{number / 1e6:.0f} MB"


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _device(device: str, dtype: str, found: Diagnosis) -> float:
    try:
        speed = measure_speed(device, dtype)
    except LayerswapError as error:
        found.wrong(str(error))
        return 0.0
    found.well(f"device {device}: about {speed / 1e9:,.0f} billion operations a second in {dtype}")
    return speed


def _tasks(profile: Profile, benchmark: str, limit: int | None, found: Diagnosis) -> list[Work]:
    if profile.tasks == "real" and profile.data_folder is None:
        _reachable(benchmark, [column.task for column in profile.benchmarks[benchmark].columns], found)
        return []
    work: list[Work] = []

    def build() -> str:
        from harness.evaluation.benchmarks import build_columns

        for column in build_columns(profile, benchmark, limit, profile.batch_size, profile.dtype):
            work.append(asked(column.instances))
        return f"{joined(work).documents:,} documents"

    _try(f"benchmark {benchmark}", build, found)
    return work


def _reachable(benchmark: str, tasks: list[str], found: Diagnosis) -> None:
    from huggingface_hub import HfApi

    from harness.evaluation.data import asked as benchmark_of

    for name in sorted({HUB[benchmark_of(task)[0]] for task in tasks}):

        def ask(name: str = name) -> str:
            HfApi().auth_check(name, repo_type="dataset")  # a licence may have to be accepted first
            return f"{name} on the hub"

        _try(f"benchmark {benchmark}", ask, found, "; --ablation-data FOLDER reads published files instead")


def _try(what: str, action: Callable[[], str], found: Diagnosis, advice: str = "") -> None:
    try:
        found.well(f"{what}: {action()}")
    except LayerswapError as error:
        found.wrong(f"{what}: {error}")
    except Exception as error:  # whatever the hub or lm-eval raises
        logging.getLogger(__name__).debug("%s", what, exc_info=True)
        found.wrong(f"{what}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}{advice}")
