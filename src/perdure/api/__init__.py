"""Definitions: decorators, calls as values, options, and the verbs of workflows and steps."""
