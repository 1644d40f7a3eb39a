"""The paper's nouns: three memories, what predicts and decides between them, and the block that holds
them.
"""
