"""Every claim of the paper as data: what is trained, what is measured, and when a claim counts as reproduced.

Start reading at ``claims``.
"""
