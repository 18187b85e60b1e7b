"""Experiments that run on a cluster: their common base, searches, comparisons and their trials."""
