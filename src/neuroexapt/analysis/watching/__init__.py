"""Watching a model while it runs: bounded rows of each layer, through hooks that are always removed."""

from neuroexapt.analysis.watching.layers import WatchedLayer, watched_layers
from neuroexapt.analysis.watching.sample import LayerSample
from neuroexapt.analysis.watching.watch import Watched, watch

__all__ = ["LayerSample", "Watched", "WatchedLayer", "watch", "watched_layers"]
