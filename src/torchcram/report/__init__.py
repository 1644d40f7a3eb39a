"""Showing a run: figures, tables and one HTML page, made from the files of a run and never from a model."""
