"""Answers requests for many variants at once: the work that they share is done once, and no answer changes by it.

Log-likelihoods: sequences are packed into token trees (:mod:`trees`), batches of which pass through the variants'
shared layers (:mod:`sharing`). Generation: a few variants decode plainly (:mod:`decoding`); their answers are *drafts*
for all others, which are verified in one shared pass, token by token, and only what no draft foresaw is decoded.
Verifying drafts of greedy answers is exact (Leviathan et al., 2023, arXiv 2211.17192, at temperature 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from harness.evaluation.decoding import Ending, Limits, greedy
from harness.evaluation.drafts import ANCHORS, anchor, filling, walk
from harness.evaluation.graphs import Graphs
from harness.evaluation.likelihoods import sums
from harness.evaluation.requests import Request
from harness.evaluation.rows import Cost, draft_tree, pack
from harness.evaluation.sharing import Held, Tensors, Variant, forward, itinerary
from harness.evaluation.trees import Batch, Row, Wanted, batches, cut
from harness.evaluation.workers import Emit, run_all

if TYPE_CHECKING:
    from torch import Tensor

Answer = tuple[float, bool] | str
Keep = Callable[[str, Mapping[int, Answer]], None]
Read = Callable[["Tensor", Variant], Mapping[int, Answer]]
LOGITS = 64 * 1024**2  # see Sizes


@dataclass(frozen=True)
class Sizes:
    """What bounds a batch: rows, tokens in a shared pass, and bytes of hidden states held between variants.

    ``threads`` is how many batches or variants run at a time, ``within`` how many threads each operation then has
    (0: as torch is set), ``decoding`` the tokens whose keys and values a batch that decodes may hold (0: four times
    ``tokens``), ``together`` its rows (0: ``rows``). ``logits`` are the entries held at a time: positions times
    vocabulary.
    """

    rows: int
    tokens: int = 16384
    decoding: int = 0
    held_bytes: int = 1024**3
    threads: int = 1
    within: int = 0
    together: int = 0
    logits: int = LOGITS


@dataclass
class Counts:
    """What sweeps came to: layer calls made, and those that the variants by themselves would have made.

    ``rows`` and ``tokens`` are of the largest batches so far.
    """

    made: int = 0
    asked: int = 0
    rows: int = 0
    tokens: int = 0


@dataclass
class Engine:
    """Runs variants of one base. ``prefix`` is what the layers' names begin with.

    ``cost`` prices a row of tokens (see :func:`harness.evaluation.trials.cost_of`); None for models that cannot be
    given rows that branch. ``share`` is whether layers may be skipped whose results are held. ``graphs`` say how steps
    of decoding are replayed, on a CUDA device; None if each is taken plainly.
    """

    tokenizer: Any
    prefix: str
    pad: int
    device: str
    sizes: Sizes
    cost: Cost | None
    share: bool = True
    counts: Counts = field(default_factory=Counts)
    graphs: Graphs | None = None

    def score(
        self,
        variants: Sequence[Variant],
        requests: Mapping[int, Request],
        keep: Keep,
        apart: Sequence[int] | None = None,
    ) -> None:
        """Log-likelihoods of every request for every variant; ``keep`` gets a batch's as soon as they are there.

        ``apart``: see :func:`pack`.
        """
        numbers = list(requests)
        lengths = [len(requests[n].continuation) for n in numbers]
        rows = self._rows(requests, apart)

        def reader(batch: Batch, where: Mapping[tuple[int, int], int]) -> Read:
            asked = [(i, path, index) for i, row in enumerate(batch.rows) for index, path in row.paths.items()]
            places = [where[i, node] for i, path, index in asked for node in path[-lengths[index] :]]
            tokens = [token for _, _, index in asked for token in requests[numbers[index]].continuation]
            owners = [k for k, (_, _, index) in enumerate(asked) for _ in range(lengths[index])]
            names = [numbers[index] for _, _, index in asked]
            return lambda logits, _: dict(zip(names, sums(logits, places, tokens, owners), strict=True))

        self._sweep(variants, rows, lambda path, index: path[-lengths[index] :], reader, keep)

    def batches(self, requests: Mapping[int, Request]) -> Iterator[tuple[Batch, tuple[tuple[int, ...], ...]]]:
        """The batches in which :meth:`score` asks ``requests``, and the numbers of the requests in each of their rows.

        Any of them asked by themselves, rows apart, come in the same batches.
        """
        numbers = list(requests)
        for batch in batches(self._rows(requests), self.sizes.rows, self.sizes.tokens):
            yield batch, tuple(tuple(numbers[index] for index in row.paths) for row in batch.rows)

    def _rows(self, requests: Mapping[int, Request], apart: Sequence[int] | None = None) -> list[Row]:
        read = [len(request.continuation) for request in requests.values()]
        scored = [request.scored for request in requests.values()]
        return pack(scored, self.cost, apart=apart, read=read, most=self._readable)

    @property
    def _readable(self) -> int:
        """Nodes of a row, beyond those of one sequence, whose logits may be held at a time."""
        return self.sizes.logits // len(self.tokenizer)

    def generate(
        self,
        variants: Sequence[Variant],
        requests: Mapping[int, Request],
        drafts: Mapping[int, Sequence[str]],
        keep: Keep,
    ) -> None:
        """Greedy answers of every request for every variant; ``drafts`` are answers that other variants gave."""
        known = {n: [self._draft(text, requests[n]) for text in dict.fromkeys(drafts.get(n, ()))] for n in requests}
        if self.cost is None:
            anchors = list(variants)
        else:
            anchors = [] if all(known.values()) else anchor(variants, filling(ANCHORS, self.sizes.threads))

        def note(identity: str, answers: Mapping[int, Answer], tokens: Mapping[int, tuple[int, ...]]) -> None:
            for number, answer in tokens.items():
                known[number].append(answer)
            keep(identity, answers)

        self._decode([(variant, dict.fromkeys(requests, ())) for variant in anchors], requests, note)
        if rest := [variant for variant in variants if variant not in anchors]:
            self._verify(rest, requests, known, keep)

    def _draft(self, text: str, request: Request) -> tuple[int, ...]:
        assert request.stop is not None
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return (*ids, *request.stop.tokens[:1])[: request.stop.most]

    def _decode(
        self,
        begun: Sequence[tuple[Variant, Mapping[int, Sequence[int]]]],
        requests: Mapping[int, Request],
        note: Emit,
    ) -> None:
        """Decodes, for each variant, answers of which the first tokens are known."""
        endings = self._endings(requests)
        sizes = self.sizes
        limits = Limits(sizes.together or sizes.rows, sizes.decoding or 4 * sizes.tokens)

        def task(variant: Variant, first: Mapping[int, Sequence[int]], emit: Emit) -> None:
            numbers = list(first)

            def done(answers: dict[int, list[int]]) -> None:
                tokens = {numbers[i]: tuple(answer) for i, answer in answers.items()}
                emit(variant.identity, {n: endings[n].text(t) for n, t in tokens.items()}, tokens)

            contexts, ends = [requests[n].context for n in numbers], [endings[n] for n in numbers]
            known = [first[n] for n in numbers]
            greedy(variant.build(), contexts, known, ends, self.pad, limits, done, self.graphs)

        run_all([partial(task, *pair) for pair in begun], self.sizes.threads, note)

    def _endings(self, requests: Mapping[int, Request]) -> dict[int, Ending]:
        stops = dict.fromkeys(request.stop for request in requests.values() if request.stop)
        made = {stop: Ending(self.tokenizer, stop) for stop in stops}
        return {number: made[request.stop] for number, request in requests.items() if request.stop}

    def _verify(
        self,
        variants: Sequence[Variant],
        requests: Mapping[int, Request],
        drafts: Mapping[int, Sequence[tuple[int, ...]]],
        keep: Keep,
    ) -> None:
        """Every variant's answers as far as some draft goes along with them; the rest is decoded."""
        endings = self._endings(requests)
        # The last token of a draft is not read: what would come after it is not asked for.
        trees = {n: draft_tree(request.context, [d[:-1] for d in drafts[n]]) for n, request in requests.items()}
        owner = [number for number, tree in trees.items() for _ in tree]
        starts = [len(requests[number].context) for number in owner]
        sequences = [sequence for tree in trees.values() for sequence in tree]
        read = [len(sequence) - start + 1 for sequence, start in zip(sequences, starts, strict=True)]
        rows = pack(sequences, self.cost, joined=starts, read=read, most=self._readable)
        going: dict[str, dict[int, list[int]]] = {variant.identity: {} for variant in variants}

        def reader(batch: Batch, where: Mapping[tuple[int, int], int]) -> Read:
            roots = [
                {owner[index]: (path[starts[index] - 1]) for index, path in row.paths.items()} for row in batch.rows
            ]
            # Only nodes that are read: another prompt may begin with this one, and go on as an answer does.
            children = [
                [{token: child for token, child in after.items() if (i, child) in where} for after in row.children]
                for i, row in enumerate(batch.rows)
            ]

            def answer(best: Sequence[int], row: int, node: int) -> int:
                return best[where[row, node]]

            def read(logits: Tensor, variant: Variant) -> dict[int, Answer]:
                best = logits.argmax(-1).tolist()
                found: dict[int, Answer] = {}
                for i, asked in enumerate(roots):
                    for number, node in asked.items():
                        tokens, ended = walk(children[i], node, partial(answer, best, i), endings[number])
                        if ended:
                            found[number] = endings[number].text(tokens)
                        else:
                            going[variant.identity][number] = tokens
                return found

            return read

        self._sweep(variants, rows, lambda path, index: path[starts[index] - 1 :], reader, keep)
        open_ = [(variant, going[variant.identity]) for variant in variants if going[variant.identity]]
        self._decode(open_, requests, lambda identity, answers, _: keep(identity, answers))

    def _sweep(
        self,
        variants: Sequence[Variant],
        rows: Sequence[Row],
        wanted: Wanted,
        reader: Callable[[Batch, Mapping[tuple[int, int], int]], Read],
        keep: Keep,
    ) -> None:
        """Every batch through every variant. ``wanted`` gives the nodes of a sequence's path whose logits are read."""
        config = variants[0].build().config.get_text_config()
        prepared = []
        sizes = self.sizes
        for batch in cut(batches(rows, sizes.rows, sizes.tokens), sizes.logits // config.vocab_size, wanted):
            picked = [(i, node) for i, row in enumerate(batch.rows) for node in row.nodes(wanted)]
            where = {place: number for number, place in enumerate(picked)}
            self.counts.rows = max(self.counts.rows, len(batch.rows))
            self.counts.tokens = max(self.counts.tokens, batch.size)
            prepared.append((batch, picked, reader(batch, where)))
        for group in self._groups(prepared, config.hidden_size):
            # The largest batches are taken first: they end together.
            work = [
                (Lock(), Held(), Tensors(batch, picked, self.pad, self.device), read)
                for batch, picked, read in sorted(group, key=lambda item: -item[0].size)
            ]
            threads = min(self.sizes.threads, len(work))
            left = iter([(step, *batch) for step in itinerary(variants, self.share) for batch in work])
            run_all([partial(self._visit, left, Lock())] * threads, threads, keep)
            self.counts.made += sum(held.made for _, held, *_ in work)
            self.counts.asked += sum(held.asked for _, held, *_ in work)

    def _visit(self, left: Iterator[Any], taking: Lock, emit: Emit) -> None:
        """Takes from a list that threads share. A batch goes to its variants in their order, whoever takes it there."""
        visited, model = None, None
        while True:
            with taking:
                if (found := next(left, None)) is None:
                    return
                step, mine, held, tensors, read = found
                mine.acquire()  # by another thread, if at all, only where there are hardly more batches than threads
            try:
                if visited is not step:
                    model = None  # first: there may be memory for one
                    visited, model = step, step.variant.build()  # of one's own: its layer list is wrapped meanwhile
                logits = forward(model, self.prefix, tensors, held, step)
            finally:
                mine.release()
            emit(step.variant.identity, read(logits, step.variant))

    def _groups(self, prepared: Sequence[Any], hidden: int) -> Iterator[list[Any]]:
        """As many batches as may hold their hidden states at once: each variant is visited once a group."""
        group: list[Any] = []
        size = 0
        for item in prepared:
            # Seldom more than four depths of one path are branched from later.
            needed = 4 * 4 * len(item[0].rows) * item[0].width * hidden
            if group and size + needed > self.sizes.held_bytes:
                yield group
                group, size = [], 0
            group.append(item)
            size += needed
        if group:
            yield group
