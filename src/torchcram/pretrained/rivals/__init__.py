"""What else can be done with the attention of a pretrained model: rivals and ablations behind one interface,
a file for each, so that one judge sees all of them on the same model, text and budget.
"""
