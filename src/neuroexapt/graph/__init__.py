"""Reading a model."""
