"""Growth against training from scratch, everything counted: tasks, arms, one run, its row, statistics, the page."""
