"""A run's folder, its source and its interruption: what everything that takes long has in common."""
