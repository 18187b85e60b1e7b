"""Statistics that know nothing of a study: intervals, correlation, regression, equivalence."""
