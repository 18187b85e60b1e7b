"""The quality of a clustering: scores, and the objectives that a study maximises."""
