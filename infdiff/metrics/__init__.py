"""How good images are: tensors to numbers."""
