"""Frames of rows become the tables that people read; every table is one function from frame to frame.

Each function takes the rows of one experiment and one profile, with the columns of `harness.results.derived`.
"""
