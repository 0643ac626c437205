"""Devices, memory readings, seeds."""
