"""Making axes shorter: which units matter least, which are dead, and what their readers can take over."""
