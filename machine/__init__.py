"""What this machine offers: where PostgreSQL and Redis programs are, and a user they may run as.

A leaf package: `localcloud` starts servers with it, `recovery` finds the client programs of the server's own major
version with it, and the tests do both. It depends on none of them.
"""
