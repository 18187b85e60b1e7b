"""Studies and grids on Ray: the only folder that knows it. Ray schedules, Optuna samples.

driver.py       starts, resumes and ends them
connection.py   joins a cluster, or starts one that asks for a token
preflight.py    what is checked before the first trial
search.py       what Ray asks for the next trial
trial.py        the trainables
packing.py      how much of a GPU a trial gets
failures.py     what ended a trial
tables.py       rows, lines, checkpoints kept
overhead.py     what a study costs beside its training
tensorboard.py, gauges.py    for watching
places.py       folders, object stores
anew.py         what a resumed study does not take from Ray's snapshot

Nothing is imported here: the process of a trial needs trial.py, and would wait for the driver's imports.
"""
