"""Studies and grids on Ray: the only folder that knows it. Ray schedules, Optuna samples.

driver.py       starts, resumes and ends them
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
"""

from catuvac.tune.driver import check_folder, connect, finish, run_grid, run_study
from catuvac.tune.packing import choose as choose_share
from catuvac.tune.places import push
from catuvac.tune.preflight import preflight

__all__ = ["check_folder", "choose_share", "connect", "finish", "preflight", "push", "run_grid", "run_study"]
