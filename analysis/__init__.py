"""From the two tables of a study to answers and figures; reads nothing else and never trains."""
