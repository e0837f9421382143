"""Checks before a deploy: replay of unfinished runs, and lint of workflow code."""
