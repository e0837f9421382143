"""Runs and histories as human-readable data without colours: what the command line and pages
show.
"""
