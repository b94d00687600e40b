"""Train a recipe with Ray Train's TorchTrainer on a Ray cluster. `pip install "ray[train]"`.

    python recipes/cluster/ray_train.py recipes/cogvideox_5b/magic_mirror.toml -o /shared/runs/magic_mirror --workers 8

Ray places the workers and makes their process group; a lost worker is noticed, all workers are started again (at most
`--restarts` times), and the run continues from its last checkpoint. The folder of the run must be shared between nodes.
"""

import argparse
import os
from pathlib import Path


def train(settings: dict) -> None:
    """What every worker runs."""
    from likeness.training import run

    run.train(Path(settings["recipe"]), overrides=settings["overrides"], output=Path(settings["output"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run, shared by all nodes")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", help="change one setting of the recipe")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--restarts", type=int, default=3, help="how often lost workers are started again")
    arguments = parser.parse_args()

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")  # Imports take long on busy nodes.
    import ray.train
    from ray.train.torch import TorchTrainer

    output = arguments.output.absolute()
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "recipe": str(arguments.recipe.absolute()),
            "overrides": tuple(arguments.set),
            "output": str(output),
        },
        scaling_config=ray.train.ScalingConfig(num_workers=arguments.workers, use_gpu=arguments.gpu),
        run_config=ray.train.RunConfig(
            name=output.name,
            storage_path=str(output.parent / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=arguments.restarts),
        ),
    )
    trainer.fit()
    print(output / "model")


if __name__ == "__main__":
    main()
