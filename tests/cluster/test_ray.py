"""Stages as actors of a real Ray with two nodes: the same numbers as on one machine, whatever is killed on the way
(make test-ray)."""

from __future__ import annotations

import os
import signal

import pytest
from cluster_comparison import Comparison, is_running, process_of

from wandb_files import read_runs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3600)]


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its workers would wait for all else on a busy machine
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_what_is_killed_on_ray_ends_as_on_one_machine(cluster, tmp_path) -> None:
    whole = Comparison(tmp_path / "local", os.environ)
    whole.finish(whole.start())
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    (tmp_path / "ray.yaml").write_text(f"executor: ray\naddress: {cluster.address}\nmax_jobs: 3\n")
    comparison = Comparison(tmp_path / "run", os.environ, tmp_path / "ray.yaml")
    process = comparison.start()
    (killed,) = comparison.until(process, lambda status: is_running(status, "train sft"))[:1]
    process_of(comparison, killed).kill()
    comparison.until(process, lambda status: len(is_running(status, "train", 2)) == 2)
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    comparison.until(process, lambda status: any(attempt["lost"] for attempt in comparison.attempts().values()))
    cluster.add_node(num_cpus=1)
    going_on = comparison.until(process, lambda status: is_running(status, "evaluate"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = comparison.attempts()
    comparison.finish(comparison.start())

    assert comparison.numbers() == whole.numbers()
    after = comparison.attempts()
    for name in going_on:
        assert after[name]["id"] == before[name]["id"], "it was taken over, not begun again"
    lost = {name: attempt["lost"] for name, attempt in after.items() if attempt["lost"]}
    assert killed in lost and 2 <= len(lost) <= 3, "the actor that was killed, and those of the node"
    assert all(len(reasons) == 1 for reasons in lost.values()) and "died" in str(lost), lost
    assert {each.state for each in comparison.status().values()} == {"done"}
    comparison.check_memory()


def test_a_search_on_ray_finds_and_tracks_what_one_on_this_machine_does(cluster, tmp_path) -> None:
    cluster.add_node(num_cpus=2)
    (tmp_path / "ray.yaml").write_text(f"executor: ray\naddress: {cluster.address}\nmax_jobs: 2\n")
    searches = ["--algorithms", "dpo,sft", "--tune", "3", "--set", "tracking.wandb.mode=offline"]
    found, tracked = [], []
    for place, on in (("local", None), ("ray", tmp_path / "ray.yaml")):
        (tmp_path / place).mkdir()
        comparison = Comparison(tmp_path / place / "run", os.environ, on, *searches)
        comparison.finish(comparison.start())
        found.append(comparison.numbers())
        runs = read_runs(comparison.out)
        tracked.append({title: (len(run["history"]), run["exit_code"]) for title, run in runs.items()})
    assert found[0] == found[1] and found[0][0]["tuning"]["labels"].keys() == {"dpo", "sft"}
    assert tracked[0] == tracked[1] and len(tracked[0]) > 6
    assert {each.state for each in comparison.status().values()} == {"done"}
