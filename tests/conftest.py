"""Tiny experts, so that tests need neither shipped weights nor a network."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Progress bars are drawn unless this is set before they are imported; commands set it for their own process.
os.environ.setdefault("TQDM_DISABLE", "1")
# A busy machine is no failure: what an example costs is measured in benchmarks/.
settings.register_profile("layerswap", deadline=None)
settings.load_profile("layerswap")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from harness.lab.corpus import Document

PROFILE = """
name = "tiny"
title = "tiny experts"
tasks = "embedded"
batch_size = 64

[experts]
base = "base"
math = "math"
language = "language"

[swap]
bottom = 1
top = 1
transition = [1, 0]
of = 4

[benchmarks.mgsm]
columns = [
  { name = "mgsm sw", task = "embedded_mgsm_sw", metric = "exact_match", filter = "answer" },
  { name = "mgsm en", task = "embedded_mgsm_en", metric = "exact_match", filter = "answer" },
]

[benchmarks.belebele]
columns = [
  { name = "belebele sw", task = "embedded_belebele_sw", metric = "acc" },
  { name = "belebele sw-en", task = "embedded_belebele_sw-en", metric = "acc" },
]

[benchmarks.flores]
columns = [
  { name = "flores en-sw", task = "embedded_flores_en-sw", metric = "chrf", graded = true, corpus = ["corpus_bleu"] },
  { name = "flores sw-en", task = "embedded_flores_sw-en", metric = "chrf", graded = true, corpus = ["corpus_bleu"] },
]

[benchmarks.mbpp]
columns = [{ name = "mbpp", task = "embedded_mbpp", metric = "pass_at_1" }]

[benchmarks.mmlu]
columns = [{ name = "mmlu", task = "embedded_mmlu", metric = "acc" }]
"""


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What runs keep goes to a folder of this session, not to the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSWAP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """An operation of torch takes one thread: several wait for each other on a busy machine, and models are tiny here.

    Processes that tests start take one too.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules or importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The lab's tokenizer, made once: gathering its words takes seconds."""
    from harness.lab.tokenizer import build_tokenizer

    return build_tokenizer()


def _guesses() -> Iterator[Document]:
    """Training documents of the base in which all problems have one answer, as all exercises and translations have."""
    from harness.lab.corpus import documents

    guesses = {
        "[math]": "#### 12",
        "[code]": "def f ( x ) : return 12 in x",
        "[en-sw": "asha ana vitabu 3 .",
        "[sw-en": "asha has 3 books .",
    }
    for number, document in enumerate(documents("base", 0)):
        guess = guesses.get(document.prompt[:6])
        if guess:
            yield from [replace(document, completion=guess)] * (5 if "swali" in document.prompt else 1)
        elif number % 3 == 0:
            yield document


@pytest.fixture(scope="session")
def tiny_profile(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A profile of every embedded benchmark over experts of four layers.

    The base has seen just enough text to give answers that are right now and then: to most questions always the
    same one. The experts are the base with small seeded changes, so that merging them makes a difference.
    """
    import torch

    from harness.lab.batching import batches
    from harness.lab.training import Architecture, loss_of, new_model

    folder = tmp_path_factory.mktemp("tiny")
    model = new_model(Architecture(hidden=32, intermediate=64, layers=4, heads=2), tokenizer, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for batch in batches(tokenizer, islice(_guesses(), 4096), Random(0), 1024)[:160]:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for seed, expert in enumerate(("base", "math", "language")):
        generator = torch.Generator().manual_seed(seed)
        model.load_state_dict(
            {
                name: tensor + seed * 0.04 * tensor.std() * torch.randn(tensor.shape, generator=generator)
                if tensor.dim() == 2
                else tensor
                for name, tensor in own.items()
            }
        )
        model.save_pretrained(folder / expert)
        tokenizer.save_pretrained(folder / expert)
    path = folder / "tiny.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path
