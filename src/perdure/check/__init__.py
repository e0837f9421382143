"""Checks of code before it is deployed: replay of unfinished runs, and the rules for
workflow code.
"""
