"""The only package that imports Dagster: the core's functions as assets, with jobs, schedules and sensors around them.

What belongs here: one file per Dagster concept, each thin. What doesn't: anything that computes.
"""
