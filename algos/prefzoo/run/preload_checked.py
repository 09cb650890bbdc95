"""`preload` for the server of stages where there may be a GPU; a stage's own process imports `preload` itself."""

import prefzoo.run.preload  # noqa: F401
from prefzoo.run.cuda_unasked import check_forks

check_forks()
