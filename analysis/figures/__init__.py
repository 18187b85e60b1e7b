"""Draws computed tables as figures, with one module per question and one for the style."""
