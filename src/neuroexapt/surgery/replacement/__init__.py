"""One operation in the place of another: kernels inside kernels, gates, folds, and what does nothing at all."""
