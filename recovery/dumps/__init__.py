"""Dumps: taken, sealed, listed, read."""
