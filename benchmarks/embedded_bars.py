"""What the embedded base and experts have learnt, on held-out documents: prints the table of docs/embedded.md.

Run it as ``python -m benchmarks.embedded_bars FOLDER``, where FOLDER holds ``base``, ``math`` and ``language``
(``harness/lab/weights`` for the shipped ones): about a minute on one core. A completion counts if every token of it
and the end after it are the likeliest, which is what greedy decoding gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from harness.lab import corpus
from harness.lab.corpus import Document, split_of
from harness.lab.lexicon import Language, lexicon
from harness.lab.sentences import problem, sentence
from harness.reporting.tables import markdown

ALL, KNOWN = lexicon(False), lexicon(True)
NEW = (
    {form for noun in ALL.nouns if not noun.known for form in (noun.sw_singular, noun.sw_plural)}
    | {verb.sw for verb in ALL.verbs if not verb.known}
    | {place.sw for place in ALL.places if not place.known}
) - {form for noun in KNOWN.nouns for form in (noun.sw_singular, noun.sw_plural)}
Make = Callable[[Random], Document | None]


def problems(kinds: Sequence[str], language: Language) -> Make:
    def make(rng: Random) -> Document:
        item = problem(rng, ALL, rng.choice(kinds))
        prompt = corpus.math_prompt(item.text.get(language), language)
        return Document(prompt, f"{item.working} #### {item.result}", corpus.problem_key(item))

    return make


def translations(known: bool, source: Language) -> Make:
    """Of known words only, or of sentences with at least one word that the base never met."""
    target: Language = "sw" if source == "en" else "en"

    def make(rng: Random) -> Document | None:
        item = sentence(rng, KNOWN if known else ALL)
        if not known and not NEW & set(item.sw.split()):
            return None
        return Document(corpus.translation_prompt(item.get(source), source), item.get(target), f"text {item.en}")

    return make


def held_out(make: Make, count: int) -> list[Document]:
    """Different documents of the test split."""

    def stream() -> Iterator[Document]:
        rng, seen = Random("bars"), set()
        while True:
            document = make(rng)
            if document and split_of(document.key) == "test" and document.prompt not in seen:
                seen.add(document.prompt)
                yield document

    return list(islice(stream(), count))


def share_right(model: Any, tokenizer: Any, documents: Sequence[Document]) -> float:
    """The share of documents whose whole completion the model would generate greedily."""
    import torch

    right = 0
    with torch.inference_mode():
        for document in documents:
            prompt, completion = (tokenizer(text)["input_ids"] for text in (document.prompt, document.completion))
            expected = [*completion, tokenizer.eos_token_id]
            ids = torch.tensor([[*prompt, *completion]])
            likeliest = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].argmax(-1)
            right += likeliest.tolist() == expected
    return right / len(documents)


def main(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base", local_files_only=True)
    models = {
        name: AutoModelForCausalLM.from_pretrained(folder / name, local_files_only=True).eval()
        for name in ("base", "math", "language")
    }
    en, sw = corpus._reading(ALL, "en", "en", True), corpus._reading(KNOWN, "sw", "sw", True)
    rows: list[tuple[str, str, Make, int, float | None]] = [
        ("base", "English one-step problems", problems(corpus.ONE_STEP, "en"), 400, 0.9),
        ("base", "known words, English to Swahili", translations(True, "en"), 200, 0.9),
        ("base", "known words, Swahili to English", translations(True, "sw"), 200, 0.9),
        ("base", "reading of four options, English", en, 200, 0.8),
        ("base", "reading of four options, Swahili, known words", sw, 200, 0.8),
        ("math", "English problems of all kinds", problems(corpus.ALL_KINDS, "en"), 400, 0.9),
        ("language", "reading of four options, Swahili", corpus._reading(ALL, "sw", "sw", True), 200, 0.85),
        ("language", "sentences with new words, English to Swahili", translations(False, "en"), 400, 0.85),
        ("language", "sentences with new words, Swahili to English", translations(False, "sw"), 400, 0.85),
        ("base", "sentences with new words, English to Swahili", translations(False, "en"), 400, None),
    ]
    table = []
    for name, text, make, count, bar in rows:
        share = share_right(models[name], tokenizer, held_out(make, count))
        table.append([name, text, count, f"{100 * share:.1f}", "" if bar is None else f"{100 * bar:.0f}"])
    print(markdown(table, ["model", "held-out documents", "n", "right, %", "bar"]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.embedded_bars FOLDER")
    main(Path(sys.argv[1]))
