"""Other people's models: where their attention sits, what it sees, texts, and a store of what was
measured; one folder for each product.
"""
