"""Demonstration data: a plausible Marseille from a seed, a month around a day and any number of past facts.

Places and rhythms are plausible, nothing in it happened, and nobody is in it. Output is declared like any other data.
"""
