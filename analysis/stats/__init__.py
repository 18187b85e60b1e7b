"""Statistics that do not depend on studies: intervals, correlation, regression, equivalence."""
