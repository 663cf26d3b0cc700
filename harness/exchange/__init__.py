"""Plans as mergekit's YAML files, and such files as recipes: an exchange with a peer, none of whose code is used."""

from __future__ import annotations
