"""What is computed from the records of runs: fits and tests, free of models and of figures."""
