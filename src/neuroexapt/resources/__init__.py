"""Devices, memory readings, seeds: what the library needs to know of the machine. Importing it changes nothing."""

from neuroexapt.resources.devices import pick_device
from neuroexapt.resources.live_storages import LiveStorages
from neuroexapt.resources.memory import MemoryGauge, free_disk_bytes, peak_resident_bytes, resident_bytes
from neuroexapt.resources.scratch import scratch_bytes
from neuroexapt.resources.seeds import random_state, set_random_state, stream

__all__ = [
    "LiveStorages",
    "MemoryGauge",
    "free_disk_bytes",
    "peak_resident_bytes",
    "pick_device",
    "random_state",
    "resident_bytes",
    "scratch_bytes",
    "set_random_state",
    "stream",
]
