"""What a grid's tasks cost here: fitted on what tasks have taken, and kept for the next plan."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path
from typing import Any

from harness.cache import Cache, key_of
from harness.evaluation.planning import Prices, Work
from harness.evaluation.variants import Settings
from harness.files import read_object, read_text

KIND, LENGTHS = "prices", "answer-lengths"
ROUNDS = 8  # after which prices hardly change
LAYER = 77_440  # weights of a layer of the model that the default prices are of
FAITH = 0.03  # how much a guess counts beside what was measured: it decides what no measurement tells apart


def fit(measured: Sequence[tuple[Work, float]], guess: Prices | None = None) -> Prices:
    """Prices, none below 0, with which tasks take about the seconds that were measured.

    Least squares in shares of what the prices say that a task takes, so that short tasks count as long ones do; shares
    of what it took would favour prices that are too low, since a task that took little by chance would count most.
    By rounds, as the shares come with the prices (iteratively reweighted least squares: P. McCullagh and J. A. Nelder,
    Generalized Linear Models, 2nd edition 1989, section 2.5, for a spread in proportion to the mean). What tasks do not
    tell apart stays in the proportions of ``guess``.
    """
    import numpy as np
    from scipy.optimize import nnls

    guess = guess or Prices()
    used = [(astuple(work), seconds) for work, seconds in measured if seconds > 0]
    if not used:
        return guess
    amounts, seconds = (np.array(part, dtype=float) for part in zip(*used, strict=True))
    prior = np.array(astuple(guess))
    prior *= seconds.sum() / max(float((amounts @ prior).sum()), 1e-12)
    faith = np.sqrt(FAITH * len(used)) * np.eye(len(prior)) / len(prior)
    said = seconds
    for _ in range(ROUNDS):
        # In units of the prior: each column says what share of a task's seconds the prior gives to it.
        shares = amounts * prior / said[:, None]
        factors, _ = nnls(np.vstack([shares, faith]), np.concatenate([seconds / said, faith.sum(0)]))
        said = np.maximum(amounts @ (factors * prior), seconds.min() / 10)
    return Prices(*(float(price) for price in factors * prior))


def guessed(config: Mapping[str, Any]) -> Prices:
    """Prices for a model of which nothing has been measured: its layers and its head cost by their weights.

    So tasks of a large model are not thought to take as little as what a task costs beside, and are cut finely enough.
    To logits the product with the head is added; the rest of their price, which is most of it in a small model, stays.
    """
    prices, text = Prices(), config.get("text_config") or config
    try:
        hidden, inner, vocabulary = (float(text[name]) for name in ("hidden_size", "intermediate_size", "vocab_size"))
    except (KeyError, TypeError, ValueError):  # of an architecture that calls them otherwise
        return prices
    a_weight, layer, head = prices.layer_tokens / LAYER, hidden * (4 * hidden + 3 * inner), hidden * vocabulary
    return replace(
        prices,
        layer_tokens=a_weight * layer,
        written=prices.written * layer / LAYER,
        read=prices.read + a_weight * head,
    )


def known_prices(cache: Cache, settings: Settings) -> Prices:
    """The prices of an earlier run with this model on such a device, or a guess."""
    text, guess = cache.document(KIND, _key(settings)), guessed(read_object(_config(settings)))
    try:
        found = {k: float(v) for k, v in json.loads(text or "{}").items()}
        return Prices(**found) if set(found) == {f.name for f in fields(Prices)} else guess
    except (ValueError, TypeError, AttributeError):
        return guess


def keep_prices(cache: Cache, settings: Settings, prices: Prices) -> None:
    """Keeps ``prices`` for the next run."""
    cache.add_document(KIND, _key(settings), json.dumps(asdict(prices)))


def known_lengths(cache: Cache, settings: Settings) -> dict[str, float]:
    """How long answers to tasks were in an earlier run: see :class:`harness.evaluation.questions.Asked`."""
    try:
        found = json.loads(cache.document(LENGTHS, _key(settings)) or "{}")
        return {str(name): float(length) for name, length in found.items() if 0 < float(length) < math.inf}
    except (ValueError, TypeError, AttributeError):
        return {}


def keep_lengths(cache: Cache, settings: Settings, lengths: Mapping[str, float]) -> None:
    """Keeps ``lengths`` for the next run."""
    cache.add_document(LENGTHS, _key(settings), json.dumps(lengths))


def _config(settings: Settings) -> Path:
    return settings.profile.expert_path("base") / "config.json"


def _key(settings: Settings) -> str:
    config = read_text(_config(settings))
    return key_of([config, settings.device, settings.dtype, settings.backend, settings.profile.batch_size], "torch")
