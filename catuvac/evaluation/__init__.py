"""How good a clustering is: scores, and the objectives that a study maximises."""
