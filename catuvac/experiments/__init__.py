"""What runs on a cluster: what every experiment has, and the search, the comparison and their trials."""
