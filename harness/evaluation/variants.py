"""A profile's experts, and the variants that plans make of them: known by digests, in memory once they are needed."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError

if TYPE_CHECKING:
    from harness.cache import Cache
    from harness.evaluation.room import Room
    from harness.evaluation.sharing import Variant
    from harness.experts import LoadedExpert
    from harness.identity import Digested
    from harness.merging.assemble import Assembler
    from harness.merging.residence import Residence
    from harness.plan import Plan
    from harness.profiles import Profile


@dataclass(frozen=True)
class Settings:
    """How a profile is evaluated in this run.

    ``limit`` is documents a task, None for all. ``workers`` is how many processes share the run, ``threads`` what each
    may use. ``memory`` bounds, in bytes, computed slots and hidden states, half of it each. ``unsafe_code`` lets
    generated programs run without a sandbox where there is none. ``backend`` is one of
    :data:`harness.execution.BACKENDS`, ``backend_args`` what its model class is given beside, ``disk`` the
    bytes that its checkpoints may take. ``place`` is where weights are held, if not on ``device``: other processes
    ask the variants then.
    """

    profile: Profile
    device: str
    dtype: str
    limit: int | None = None
    threads: int | None = None
    workers: int = 1
    memory: int = 2 * 1024**3
    unsafe_code: bool = False
    backend: str = "shared"
    backend_args: tuple[tuple[str, Any], ...] = ()
    disk: int = 100 * 10**9
    place: str = ""

    @property
    def home(self) -> str:
        """Where experts are held in memory: not beside a backend that loads checkpoints by itself."""
        return self.place or ("cpu" if self.backend == "vllm" else self.device)


class Variants:
    """What plans make of a profile's experts. ``store`` knows digests of earlier runs; ``seconds`` are by stage."""

    def __init__(self, settings: Settings, store: Cache) -> None:
        self.settings = settings
        self.seconds: dict[str, float] = {}
        self.digests: dict[str, Digested] = {}
        self.experts: dict[str, LoadedExpert] = {}
        self.merging: dict[str, float] = {}  # seconds, by identity
        self.spent: dict[str, float] = {}  # the same in processor seconds of the thread that built it
        self.room: Room | None = None  # on a GPU, once the first expert has been loaded
        self._store = store
        self._assembler: Assembler | None = None
        self._residence: Residence | None = None  # on an accelerator
        self._building = threading.Lock()
        self._identities: dict[Plan, str] = {}

    @cached_property
    def layers(self) -> int:
        """The base's depth, from its config alone: no weights are read."""
        from harness.merging.storage import read_depth

        return read_depth(self.settings.profile.expert_path("base"))

    def load(self, names: Iterable[str]) -> Assembler:
        """Experts in memory, each loaded once for the session, and checked against each other."""
        names = tuple(dict.fromkeys(names))
        self._check(names)
        missing = [name for name in names if name not in self.experts]
        if missing or self._assembler is None:
            started = time.monotonic()
            self._load(names, missing)
            self.add("load experts", started)
        assert self._assembler is not None
        return self._assembler

    def identity(self, plan: Plan) -> str:
        """The digest of the weights that ``plan`` gives."""
        from harness.identity import identity

        if plan not in self._identities:
            self.know(plan.experts)
            self._identities[plan] = identity(plan, self.digests, self.settings.dtype)
        return self._identities[plan]

    def slots(self, plan: Plan) -> tuple[str, ...]:
        from harness.identity import slot_identities

        self.know(plan.experts)
        return slot_identities(plan, self.digests)

    def model(self, plan: Plan) -> Any:
        """The variant itself, a model of one's own whose layers are shared; ``merging`` notes what the first took."""
        from harness.merging.residence import copied

        identity = self.identity(plan)
        assembler = self.load(plan.experts)
        with self._building:
            started = time.monotonic()
            if self._residence:
                self._residence.hold(copied(plan))
            spent = time.thread_time()
            model = assembler.build(plan)
            if identity not in self.merging:
                self.spent[identity] = time.thread_time() - spent
                self.merging[identity] = self.add("merge", started)
        return model

    def variant(self, plan: Plan) -> Variant:
        from harness.evaluation.sharing import Variant

        return Variant(self.identity(plan), self.slots(plan), lambda: self.model(plan))

    def hold(self, name: str) -> None:
        """Has all of an expert on the device, until other weights take its place."""
        if self._residence:
            self._residence.hold((name, slot) for slot in self.experts[name].slot_digests)

    def _settle(self, expert: LoadedExpert) -> None:
        """Makes an expert's slots ready to go to the accelerator, and divides its memory when the first one comes."""
        from harness.evaluation.room import divided, free_bytes
        from harness.merging.residence import Residence

        home, model = self.settings.home, expert.model
        if self._residence is None:
            if (free := free_bytes(home)) is not None:
                size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
                experts, width = len(self.settings.profile.experts), model.dtype.itemsize
                self.room = divided(free, size, experts, self.settings.memory, model.config, width)
            self._residence = Residence(home, self.room.weights if self.room else None)
        self._residence.add(expert.name, model)

    def plan_of(self, identity: str) -> Plan:
        """A plan that gives the weights of this digest: one of those whose digest has been asked for."""
        return next(plan for plan, known in self._identities.items() if known == identity)

    def add(self, stage: str, started: float, besides: float = 0.0) -> float:
        """Notes the seconds since ``started`` under a stage, without those that are noted ``besides``."""
        seconds = time.monotonic() - started - besides
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        return seconds

    def _check(self, names: Sequence[str]) -> None:
        profile = self.settings.profile
        if unknown := [name for name in names if name not in profile.experts]:
            raise LayerswapError(
                f"profile {profile.name} has no expert {', '.join(unknown)}: it has {', '.join(profile.experts)}"
            )

    def know(self, names: Sequence[str]) -> None:
        """Makes sure that experts' digests are known, from their files or an earlier run if that will do."""
        from harness.digests import slot_digests

        self._check(names)
        profile = self.settings.profile
        for name in names:
            if name not in self.digests:
                found = slot_digests(
                    profile.expert_path(name), self.settings.dtype, profile.expert_path("base"), self._store
                )
                if found is None:
                    self.load([name])
                else:
                    self.digests[name] = found

    def _load(self, names: Sequence[str], missing: Sequence[str]) -> None:
        import torch

        from harness.devices import check_presence
        from harness.digests import kept_digests, remember
        from harness.evaluation.kernels import quicken
        from harness.experts import load_expert
        from harness.merging.assemble import Assembler
        from harness.merging.preflight import preflight

        settings, profile = self.settings, self.settings.profile
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.home != "cpu":
            check_presence(settings.home)
        paths = {name: profile.expert_path(name) for name in names}
        # An adapter has no shapes of its own to compare: it is applied to the base, which is checked.
        preflight(
            {name: path for name, path in paths.items() if not (path / "adapter_config.json").is_file()}, self._store
        )
        base = profile.expert_path("base")
        for name in missing:
            known = kept_digests(paths[name], settings.dtype, base, self._store)
            expert = load_expert(name, paths[name], settings.dtype, base, known)
            if known is None:
                remember(paths[name], settings.dtype, base, self._store, expert)
            if settings.home != "cpu":
                self._settle(expert)
            elif settings.backend == "shared":  # others are the reference, as they are
                quicken(expert.model)
            self.experts[name] = self.digests[name] = expert
        computed = self.room.computed if self.room else settings.memory // 2
        self._assembler = Assembler(self.experts, computed, settings.home)
        gc.freeze()  # libraries and experts are half a million objects, through which each full collection would walk
