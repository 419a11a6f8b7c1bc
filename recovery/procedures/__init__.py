"""The procedures of the runbook, each a list of steps that reads like the page it implements."""
