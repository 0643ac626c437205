"""Journal, plots, html."""
