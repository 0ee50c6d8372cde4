"""A checkpoint written in the format of another program, its model card last."""

from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.lookup import read_config
from ray_jobs.exchange import monai_bundle, nnunet_folder, onnx_file
from ray_jobs.exchange.description import describe_network, describe_training
from ray_jobs.exchange.give_config import Kind
from ray_jobs.exchange.model_card import write_card
from ray_jobs.exchange.plain_network import open_plain
from storage.store.objects import Objects


def give(kind: Kind, checkpoint: Checkpoint, folder: Objects) -> list[str]:
    """Write the network into `folder` as `kind` has it; return the files' names."""
    description = describe_network(checkpoint)
    network, config = open_plain(checkpoint), read_config(checkpoint).model
    program = {"onnx": onnx_file, "monai": monai_bundle, "nnunet": nnunet_folder}[kind]
    files: dict[str, bytes] = program.encode(network, config, description)
    card = write_card(description, describe_training(checkpoint), file=program.FILE, runs=program.RUNS)
    files[program.CARD] = card.encode()
    for name, content in files.items():
        folder.put(name, content)
    return list(files)
