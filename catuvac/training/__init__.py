"""The training function, its step, schedules and checkpoints. Nothing here knows files of a study, or Ray."""
