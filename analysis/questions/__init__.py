"""One module per question: from tables of trials to a frozen dataclass of results. No module draws or writes prose."""
