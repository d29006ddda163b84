"""Weights: the file format, and where files are found."""
