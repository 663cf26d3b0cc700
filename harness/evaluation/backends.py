"""What answers a benchmark's requests: the shared engine, or one of lm-eval's own model classes on each variant.

``hf`` is lm-eval's HFLM, unchanged, on the variant in memory: the reference that the shared engine is compared with.
``vllm`` is lm-eval's own vLLM class on the variant's checkpoint, which is written for it and deleted after use.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.evaluation.editions import engine_digest
from harness.evaluation.sharing import Variant
from harness.evaluation.stock import Stock, hf_model
from harness.files import cache_folder

if TYPE_CHECKING:
    from harness.evaluation.sweep import Sweeper
    from harness.evaluation.variants import Variants
    from harness.plan import Plan

HEADER = 256  # bytes of a tensor's entry in a file's header, at most
LEFT = 2**30  # bytes of disk that exports leave free


def asker(variants: Variants) -> Sweeper | Stock:
    """What the settings of ``variants`` name."""
    settings = variants.settings
    digest = engine_digest(settings)
    if settings.backend == "vllm":
        exports = Exports(partial(_write, variants), settings.disk, _bytes(variants))
        return Stock(partial(checkpointed, exports, variants.plan_of, partial(_vllm, variants)), digest)
    from transformers import AutoTokenizer

    from harness.evaluation.sweep import Sweeper

    variants.load(["base"])
    profile = settings.profile
    tokenizer = AutoTokenizer.from_pretrained(profile.expert_path("base"), local_files_only=True)
    if settings.backend == "hf":
        return Stock(lambda v: nullcontext(hf_model(v.build(), tokenizer, profile.batch_size)), digest)
    return Sweeper(
        variants.experts["base"],
        tokenizer,
        settings.device,
        profile.batch_size,
        settings.memory // 2,
        digest,
        settings.home,
        variants.room,
        lambda: variants.hold("base"),
    )


@contextmanager
def checkpointed(
    exports: Exports, plan_of: Callable[[str], Plan], load: Callable[[Path], Any], variant: Variant
) -> Iterator[Any]:
    """What ``load`` makes of the variant's checkpoint; its memory is given back when the block ends."""
    model = load(exports.folder(variant.identity, plan_of(variant.identity)))
    try:
        yield model
    finally:
        del model
        gc.collect()


def _vllm(variants: Variants, folder: Path) -> Any:
    try:
        from lm_eval.models.vllm_causallms import VLLM

        settings = variants.settings
        return VLLM(pretrained=str(folder), dtype=settings.dtype, add_bos_token=False, **dict(settings.backend_args))
    except (ImportError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LayerswapError(f"--ablation-backend vllm cannot load a variant: {reason}") from error


class Exports:
    """Checkpoints of variants, written by ``write`` when they are needed and together no larger than ``most`` bytes.

    Those unused for longest are deleted first, and all with this object. ``size`` is what one takes, in bytes.
    """

    def __init__(self, write: Callable[[Plan, Path], object], most: int, size: int) -> None:
        if size > most:
            raise LayerswapError(
                f"a variant's checkpoint takes {size / 1e9:.1f} GB and --ablation-disk allows {most / 1e9:.1f} GB: "
                "allow more"
            )
        self._write, self._most, self._size = write, most, size
        self._folders: dict[str, Path] = {}
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._root = Path(tempfile.mkdtemp(prefix="exports-", dir=cache_folder()))
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)

    def folder(self, identity: str, plan: Plan) -> Path:
        """The checkpoint of ``plan``, good until the next call. LayerswapError if the disk has no room for it."""
        found = self._folders.pop(identity, None)
        if found is None:
            while (self._folders and (len(self._folders) + 1) * self._size > self._most) or self._short():
                if not self._folders:
                    raise LayerswapError(
                        f"no room for a checkpoint of {self._size / 1e9:.1f} GB in {self._root.parent}: free some, or "
                        "name another folder in LAYERSWAP_CACHE"
                    )
                shutil.rmtree(self._folders.pop(next(iter(self._folders))))
            found = self._root / identity[:32]
            self._write(plan, found)
        self._folders[identity] = found  # the one used last at the end
        return found

    def _short(self) -> bool:
        return shutil.disk_usage(self._root).free < self._size + LEFT


def _write(variants: Variants, plan: Plan, out: Path) -> None:
    from harness.merging.checkpoint import write_checkpoint

    profile = variants.settings.profile
    sources: dict[str, Any] = {name: profile.expert_path(name) for name in plan.experts}
    if adapters := [name for name, path in sources.items() if (path / "adapter_config.json").is_file()]:
        variants.load(adapters)
        sources |= {name: variants.experts[name] for name in adapters}
    write_checkpoint(plan, sources, out, dtype=variants.settings.dtype, flush=False)


def _bytes(variants: Variants) -> int:
    """What a variant's checkpoint takes at most: the base's weights, in the dtype to write, with a head of its own."""
    from harness.merging.headers import read_folder

    dtype, path = variants.settings.dtype, variants.settings.profile.expert_path("base")
    width = 4 if dtype == "float32" else 2
    sizes = [r.end - r.begin if dtype == "auto" else width * math.prod(r.shape) for r in read_folder(path).values()]
    tied = json.loads((path / "config.json").read_text("utf-8")).get("tie_word_embeddings", True)
    beside = sum(file.stat().st_size for file in path.glob("*") if file.suffix in (".json", ".model", ".txt"))
    return sum(sizes) + HEADER * len(sizes) + (max(sizes) if tied else 0) + beside
