"""Runs and histories as data for people to read, without colours: what the command line and pages
show.
"""
