# python cluster_configs/start_head.py FLAGS...: `ray start --head FLAGS...`, without Ray Client's server.
#
# Ray Client serves drivers on other machines, of which there is none here: studies are jobs. Its server listens on the
# address of the machine (port 10001), and `ray start` has no flag to leave it out: it starts it wherever it can.
"""Starts a Ray head that serves no Ray Client."""

import sys

from ray.scripts import scripts

scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted here")  # as where it cannot

sys.argv[1:1] = ["start", "--head"]
sys.exit(scripts.main())
