"""A private cluster keeps to itself."""

from collections.abc import Callable
from typing import Any

import ray

from ray_jobs.on_ray.ray_start import ray_running


def test_workers_find_their_own_cluster_beside_another(start_head: Callable[..., Any]) -> None:
    """Ray Train's helpers ask the state API without an address; one that guesses refuses where there are two."""
    start_head()

    def ask() -> list[str]:
        from ray.util.state import list_nodes

        return [node.node_id for node in list_nodes()]

    with ray_running():
        own = ray.get_runtime_context().get_node_id()
        assert ray.get(ray.remote(ask).remote()) == [own]
