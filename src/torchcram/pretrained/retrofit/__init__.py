"""The three memories inside the attention of a pretrained language model: what is near is attended to, what
is remote is predicted, or read.
"""
