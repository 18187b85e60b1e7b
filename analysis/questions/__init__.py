"""One question a module: tables of trials to a frozen dataclass of results. Nothing here draws or writes prose."""
