"""Conformal calibration of a threshold: rules, risk curves, choices, studies. Knows no model."""
