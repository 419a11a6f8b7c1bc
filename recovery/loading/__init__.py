"""Putting a dump into a server: the side database, the sessions, the rules, the order of work."""
