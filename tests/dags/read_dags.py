"""Read the DAGs of a folder as Airflow does and print what they are. Usage: read_dags.py FOLDER [MODULE …to refuse].

Runs in an environment that has Airflow and the thin `pinloom` alone.
"""

import json
import sys
from importlib.abc import MetaPathFinder

LIGHT = {"components", "components.errors"}
"""Without any import of their own."""


class Refuse(MetaPathFinder):
    """Imports of these modules fail, as if they were not installed."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names and name not in LIGHT:
            raise ModuleNotFoundError(f"{name} is not in Airflow's image", name=name)


def describe(dag) -> dict:
    condition = getattr(dag.timetable, "asset_condition", None)
    return {
        "triggered_by": sorted(asset.name for asset in getattr(condition, "objects", [])),
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "tasks": {
            task.task_id: {
                "after": sorted(task.upstream_task_ids),
                "steps": getattr(task, "steps", []),
                "dataset": getattr(task, "dataset", None),
                "makes": sorted(asset.name for asset in task.outlets),
            }
            for task in dag.tasks
        },
    }


def main(folder: str, *refused: str) -> None:
    sys.meta_path.insert(0, Refuse(set(refused)))
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(folder)
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    print(json.dumps({dag_id: describe(dag) for dag_id, dag in sorted(bag.dags.items())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
