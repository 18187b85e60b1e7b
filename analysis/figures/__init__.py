"""Drawing only: a computed table in, a figure out; one file for each question's figures, one for their style."""
