"""The definitions that users write: decorators, calls as values, options, and the verbs inside
workflows and steps.
"""
