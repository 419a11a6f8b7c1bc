"""Applications that a drill is rehearsed with."""
