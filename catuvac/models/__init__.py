"""The networks and the variational models built from them."""
