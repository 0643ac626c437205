"""Where edits can be made: sites of pieces, readers and neighbours of layers, residual branches."""
