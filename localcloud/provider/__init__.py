"""`pulumi-resource-aws` over boto3: the provider that rehearsals use where the official plugin cannot be had.

It serves the types and functions that the stacks of this repository use, and only an AWS that listens on loopback.
"""
