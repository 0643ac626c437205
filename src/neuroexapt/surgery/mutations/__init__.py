"""The family of mutations. A new one is a file here and a line in ``MUTATIONS``."""

from neuroexapt.surgery.mutation import Mutation
from neuroexapt.surgery.mutations.insert_layer import InsertLayer
from neuroexapt.surgery.mutations.widen import Widen

MUTATIONS: dict[str, type[Mutation]] = {
    "Widen": Widen,
    "InsertLayer": InsertLayer,
}

__all__ = ["MUTATIONS", "InsertLayer", "Widen"]
