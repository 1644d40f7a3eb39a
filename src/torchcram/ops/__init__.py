"""Maths without parameters: each operation has a slow reference beside its fast form, with the same
signature.
"""
