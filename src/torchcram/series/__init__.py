"""Irregular time series: estimators, tables, real data sets, and the comparison of methods."""
