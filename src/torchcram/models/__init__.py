"""Whole models, from inputs to heads."""
