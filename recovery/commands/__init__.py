"""The commands of `recovery`, one group to a file. They call, and hand what they got to the console."""
