"""What `make bench` measures; each figure is printed beside its aim or its peer, and nothing is asserted."""
