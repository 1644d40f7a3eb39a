"""Tasks: sources of batches, drawn from a passed generator, with their oracles."""
