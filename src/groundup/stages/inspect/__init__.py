"""`groundup data inspect`: what an expert would look at in data, before a model is trained on it."""
