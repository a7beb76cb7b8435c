"""The assets, one file per group; each is a few lines over the core.

What belongs here: factories that take the settings and return definitions. What doesn't: wiring (``build``).
"""
