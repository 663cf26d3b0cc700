"""pytest-layerswap: ablations of layer-swapped language models as pytest cases."""

from __future__ import annotations

__version__ = "0.1.0"
