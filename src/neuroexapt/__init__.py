"""NeuroExapt: change a network's architecture while it trains, and lose nothing."""

__version__ = "0.1.0"
