"""Categorical unsupervised variational acoustic clustering (Cat. UVAC, arXiv 2504.07652)."""

__version__ = "0.1.0"
