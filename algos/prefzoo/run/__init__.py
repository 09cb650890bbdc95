"""Run a comparison's stages: graph, cache, executor, worker."""
