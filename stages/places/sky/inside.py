"""SkyPilot's words on a task. Its own Python runs this file: it cannot be installed beside ours.

Both are given the task as JSON at stdin. `check` refuses what SkyPilot cannot read, and
infrastructure that cannot end a machine by itself; `price` prints dollars an hour, as JSON.
"""

import importlib
import json
import sys
from types import TracebackType
from typing import Any


def main(act: str) -> None:
    """Do one of the two."""
    sky: Any = importlib.import_module("sky")
    told = json.load(sys.stdin)
    task = sky.Task.from_yaml_config(told)
    if act == "check":
        check(task)
    else:
        print(json.dumps({"usd_per_hour": price(sky, task)}))


def check(task: Any) -> None:
    """What the named infrastructure must be able to do, in SkyPilot's own table of features.

    Resources without `infra` are held against it by SkyPilot itself, at the launch.
    """
    features = importlib.import_module("sky.clouds").CloudImplementationFeatures
    needed = {features.AUTODOWN} | ({features.MULTI_NODE} if task.num_nodes > 1 else set())
    for resources in task.resources:
        if resources.cloud is not None:
            resources.cloud.check_features_are_supported(resources, needed)


def price(sky: Any, task: Any) -> float:
    """Dollars an hour of the cheapest that it would rent, all machines together."""
    with sky.Dag() as dag:
        dag.add(task)
    optimizer = importlib.import_module("sky.optimizer").Optimizer
    optimizer.optimize(dag, quiet=True)
    return float(task.best_resources.get_cost(3600) * task.num_nodes)


def refused(_: type[BaseException], value: BaseException, __: TracebackType | None) -> None:
    """Its message alone."""
    print(value, file=sys.stderr)


if __name__ == "__main__":
    sys.excepthook = refused
    main(sys.argv[1])
