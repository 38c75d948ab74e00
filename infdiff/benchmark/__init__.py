"""How fast it is: operators, steps of training and of sampling, and what they cost."""
