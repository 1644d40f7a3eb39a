"""Peers on real irregular series, side by side: the same splits, the same tuning, test data touched once."""
