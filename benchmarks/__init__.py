"""Measurements of gatedcells; see README.md in this folder. Nothing imports this package."""
