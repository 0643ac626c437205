"""The owned step."""
