# python cluster_configs/start_head.py FLAGS...: `ray start --head FLAGS...`, without the Ray Client server.
#
# Ray Client serves drivers on other machines, which are not used here: studies are jobs. Its server listens on the
# machine's address (port 10001), and `ray start` has no flag to disable it: it starts whenever its dependencies exist.
"""Starts a Ray head without the Ray Client server."""

import sys

from ray.scripts import scripts

scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted here")  # as if they were missing

sys.argv[1:1] = ["start", "--head"]
sys.exit(scripts.main())
