"""Studies and grids on Ray, which only this folder uses. Ray schedules the trials, Optuna samples them.

driver.py                      starts, resumes and finishes studies
connection.py                  joins a cluster, or starts one that requires a token
preflight.py                   checks before the first trial
searcher.py                    provides the next trial to Ray
trainable.py                   the trainables
gpu_sharing.py                 the share of a GPU per trial
failures.py                    why a trial failed
results_callback.py            tables, printed lines, checkpoints to keep
overhead.py                    the cost of a study besides its training
tensorboard.py, prometheus.py  monitoring
storage.py                     folders and object stores
process_local.py               objects that Ray's snapshots do not contain

Nothing is imported here: a trial's process needs only trainable.py, and would have to wait for the driver's imports.
"""
