"""The ladder of checks that proves a database to be the one that was backed up."""
