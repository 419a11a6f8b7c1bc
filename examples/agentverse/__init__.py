"""AgentVerse in small: its database, its blobs, and a little production of both on the embedded cloud.

`python -m examples.agentverse --help` lists what it does; docs/example-platform.md explains it.
"""
