"""The training function, its step, schedules and checkpoints. Nothing here depends on a study's files or Ray."""
