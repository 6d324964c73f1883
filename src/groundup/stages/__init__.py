"""One short file a stage: it wires rooms together and owns nothing."""
