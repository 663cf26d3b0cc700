"""Live variants: real transformers models whose pure layers are the experts' own modules.

Nothing is copied: a variant is a new skeleton (a shallow copy of the modules on the way to the layer list, and of the
list itself) around modules that the experts own. Slots that are computed are computed once for each (tensor, mix) and
shared by every variant that uses them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

from harness.errors import LayerswapError
from harness.experts import LoadedExpert, canonical_names, slots_of
from harness.merging.arithmetic import merge_tensor, task_vector, threshold
from harness.plan import Mix, Plan

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Assembler:
    """Builds variants out of ``experts`` (by name), which must have passed the preflight.

    A layer module always keeps its index, so key-value caches work. Variants share modules with the experts and with
    each other: treat them as read-only. Not thread-safe. Computed tensors are kept up to ``memory`` bytes; beyond,
    those that no variant has used for longest are let go, and computed anew when they are needed. They are computed on
    ``device``; None: where the experts are.
    """

    def __init__(
        self, experts: Mapping[str, LoadedExpert], memory: int | None = None, device: str | None = None
    ) -> None:
        if not experts:
            raise LayerswapError("there are no experts to merge")
        self._experts = dict(experts)
        self._memory, self._device = memory, device
        donor = next(iter(self._experts.values())).model
        self._slot = {name: slot for slot, names in slots_of(donor).items() for name in names}
        self._canonical = canonical_names(donor)
        self._slots_with: dict[str, set[str]] = {}
        for name, canonical in self._canonical.items():
            self._slots_with.setdefault(canonical, set()).add(self._slot[name])
        self._state = {name: dict(e.model.state_dict(keep_vars=True)) for name, e in self._experts.items()}
        self._modules = {name: dict(e.model.named_modules(remove_duplicate=False)) for name, e in self._experts.items()}
        self._slots_below = self._slots_by_module()
        self._tensors: dict[tuple[str, Mix], Tensor] = {}
        self._held = 0  # bytes of these
        self._computed: dict[tuple[str, Mix], nn.Module] = {}
        self._cuts: dict[tuple[str, str, float], float] = {}
        self._used: dict[tuple[str, Mix], None] = {}  # slots as variants fill them, the one used last at the end
        for expert in self._experts.values():
            _install_capture_hooks(expert.model)

    def build(self, plan: Plan) -> PreTrainedModel:
        """The variant of ``plan``: evaluation mode, no gradients, its own config and generation config.

        Raises :class:`LayerswapError` if the plan has another depth or names an expert that is not loaded. If the
        experts tie embeddings and head but the plan fills them differently, the variant's are not tied.
        """
        self._check(plan)
        mixes = dict(plan.mixes)
        donor = self._experts[plan.experts[0]].model
        skeleton: list[Any] = []
        model = cast("PreTrainedModel", self._assemble("", donor, mixes, skeleton))
        config = copy.deepcopy(donor.config)
        config._name_or_path = model.name_or_path = f"layerswap:{plan.digest[:16]}"
        untied = mixes["embed"] != mixes["head"]
        for module in skeleton:
            if getattr(module, "config", None) is donor.config:
                module.config = config
            if untied and getattr(module, "all_tied_weights_keys", None):
                module.all_tied_weights_keys = {}
        if untied:
            # tie_weights(), which evaluation libraries call again, would otherwise replace the head by the embeddings.
            config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        if getattr(model, "generation_config", None) is not None:
            model.generation_config = copy.deepcopy(model.generation_config)
        self._let_go(plan)
        return model

    def clear(self) -> None:
        """Forgets computed slots; variants that are still in use keep theirs."""
        self._tensors.clear()
        self._held = 0
        self._computed.clear()

    @property
    def held_bytes(self) -> int:
        """Bytes of the computed tensors that are kept."""
        return self._held

    def _let_go(self, plan: Plan) -> None:
        """Keeps within the budget, whole slots at a time; what ``plan`` has just been built of stays."""
        for unit in plan.mixes:
            self._used[unit] = self._used.pop(unit, None)  # to the end
        if self._memory is None or self._held <= self._memory:
            return
        for unit in [unit for unit in self._used if unit not in plan.mixes]:
            if self._held <= self._memory:
                break
            del self._used[unit]
            slot, mix = unit
            for name in [n for n, m in self._tensors if m == mix and self._is_free(n, mix, slot)]:
                tensor = self._tensors.pop((name, mix))
                self._held -= tensor.numel() * tensor.element_size()
            for path in [p for p, m in self._computed if m == mix and self._slots_below[p] == {slot}]:
                del self._computed[path, mix]

    def _is_free(self, name: str, mix: Mix, slot: str) -> bool:
        """Whether a tensor is of ``slot``, and of no other that is still held: tied names may lie in two slots."""
        slots = self._slots_with[name]
        return slot in slots and not any((other, mix) in self._used for other in slots)

    def _check(self, plan: Plan) -> None:
        for name in plan.experts:
            if name not in self._experts:
                raise LayerswapError(f"expert {name!r} is not loaded: loaded are {', '.join(self._experts)}")
        layers = len(set(self._slot.values()) - {"embed", "norm", "head"})
        if plan.layers != layers:
            raise LayerswapError(f"the plan is for {plan.layers} layers, the experts have {layers}")

    def _slots_by_module(self) -> Mapping[str, set[str]]:
        below: dict[str, set[str]] = {}
        for name, slot in self._slot.items():
            parts = name.split(".")
            for end in range(len(parts)):
                below.setdefault(".".join(parts[:end]), set()).add(slot)
        return below

    def _assemble(self, path: str, donor: nn.Module, mixes: Mapping[str, Mix], skeleton: list[nn.Module]) -> nn.Module:
        """The module at ``path``: an expert's own, a computed one, or a shallow copy, noted in ``skeleton``."""
        slots = self._slots_below.get(path, set())
        if not slots:  # dropout, activations, rotary tables: no weights
            return donor
        # A list of one layer is no layer: it stays the variant's own.
        if len(slots) == 1 and type(donor).__name__ != "ModuleList":
            mix = mixes[next(iter(slots))]
            return self._modules[mix.sources[0][0]][path] if mix.is_copy else self._compute(path, donor, mix)
        module = _shallow(donor)
        skeleton.append(module)
        dot = f"{path}." if path else ""
        for name, child in donor._modules.items():
            module._modules[name] = None if child is None else self._assemble(dot + name, child, mixes, skeleton)
        self._fill(module, dot, lambda name: mixes[self._slot[name]])
        return module

    def _compute(self, path: str, donor: nn.Module, mix: Mix) -> nn.Module:
        """A module like ``donor`` whose tensors are all filled by ``mix``."""
        if path not in self._slots_below:  # no weights
            return donor
        if (path, mix) not in self._computed:
            module = _shallow(donor)
            for name, child in donor._modules.items():
                module._modules[name] = None if child is None else self._compute(f"{path}.{name}", child, mix)
            self._fill(module, f"{path}.", lambda name: mix)
            self._computed[path, mix] = module
        return self._computed[path, mix]

    def _fill(self, module: nn.Module, prefix: str, mix_of: Callable[[str], Mix]) -> None:
        """Replaces the tensors that ``module`` itself holds."""
        for own in (module._parameters, module._buffers):
            for name in own:
                if prefix + name in self._slot:  # absent: None, or a buffer that no checkpoint stores
                    own[name] = self._tensor(prefix + name, mix_of(prefix + name))  # type: ignore[assignment]

    def _tensor(self, name: str, mix: Mix) -> Tensor:
        """The tensor ``name`` filled by ``mix``; tied names with the same mix are one tensor."""
        import torch

        canonical = self._canonical[name]
        if mix.is_copy:
            return cast("Tensor", self._state[mix.sources[0][0]][name])
        if (canonical, mix) not in self._tensors:
            with torch.no_grad():
                merged = merge_tensor(mix, canonical, lambda expert: self._there(expert, name), self._cut_of(mix))
            is_parameter = isinstance(self._state[mix.sources[0][0]][name], torch.nn.Parameter)
            self._tensors[canonical, mix] = torch.nn.Parameter(merged, requires_grad=False) if is_parameter else merged
            self._held += merged.numel() * merged.element_size()
        return self._tensors[canonical, mix]

    def _there(self, expert: str, name: str) -> Tensor:
        tensor: Tensor = self._state[expert][name]
        return tensor if self._device is None else tensor.to(self._device)

    def _cut_of(self, mix: Mix) -> Callable[[str], float] | None:
        """For TIES over the whole model: the magnitude under which an expert's changes are dropped."""
        if mix.parameter("trim") != "model":
            return None
        base, density = str(mix.parameter("base")), float(mix.parameter("density") or 0.0)

        def cut(expert: str) -> float:
            key = (expert, base, density)
            if key not in self._cuts:
                names = [n for n in dict.fromkeys(self._canonical.values()) if self._state[base][n].is_floating_point()]
                self._cuts[key] = threshold(
                    lambda: chain.from_iterable(
                        task_vector(self._there(expert, n), self._there(base, n)) for n in names
                    ),
                    density,
                )
            return self._cuts[key]

        return cut


def _shallow(module: ModuleT) -> ModuleT:
    """A module of its own that holds the same children, tensors and hooks."""
    new = module.__class__.__new__(module.__class__)
    # Each dictionary of a module (children, tensors, hooks) must be its own, or a change would show in both.
    own = {k: v.copy() if isinstance(v, dict | OrderedDict | set) else v for k, v in module.__dict__.items()}
    new.__dict__.update(own)
    return new


def _install_capture_hooks(model: Any) -> None:
    """Installs transformers' hooks for ``output_hidden_states`` on an expert, once.

    From transformers 5 on, each *model* installs them on its layers at first use. Variants share layers, so a second
    variant would install them again and every hidden state would be recorded twice.
    """
    try:
        from transformers import PreTrainedModel
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:
        return
    for module in list(model.modules()):
        if isinstance(module, PreTrainedModel):
            maybe_install_capturing_hooks(module)
