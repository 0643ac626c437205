"""Built-in seed networks."""
