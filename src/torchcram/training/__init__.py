"""Training a model: configuration, folder, loop, evaluation, summary. Start reading at ``loop.py``."""
