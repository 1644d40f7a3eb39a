"""Mixers to compare with, behind the same protocol as CRAM."""
