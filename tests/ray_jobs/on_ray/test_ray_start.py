"""A private cluster keeps to itself."""

import pytest
import ray

from ray_jobs.on_ray.ray_start import ray_running


@pytest.mark.processes
@pytest.mark.usefixtures("shared_head")
def test_workers_find_their_own_cluster_beside_another() -> None:
    """Ray Train's helpers ask the state API without an address; one that guesses refuses where there are two."""

    def ask() -> list[str]:
        from ray.util.state import list_nodes

        return [node.node_id for node in list_nodes()]

    with ray_running():
        own = ray.get_runtime_context().get_node_id()
        assert ray.get(ray.remote(ask).remote()) == [own]
