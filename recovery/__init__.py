"""Acts on a disaster: backs up, restores, verifies, drills, and writes down what happened."""
