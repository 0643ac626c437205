"""Carrying a plan out, every write with its inverse: the only code that changes a model or an optimizer."""
