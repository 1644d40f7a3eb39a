"""What a retrofitted model is worth: quality by position, an exam of retrieval, speed and memory, and rivals
under the same judge.
"""
