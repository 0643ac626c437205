"""Looking at a model before and after an edit: its function, what flows through it, what it will cost."""
