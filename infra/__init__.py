"""Declares what must exist before a disaster (`primary`) and during one (`dr`). Knows nothing of `recovery`."""
