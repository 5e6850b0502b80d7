"""Figures beside their ceilings and peers, measured in the same run."""
