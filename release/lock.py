"""``make lock``: bring dvc.lock up to date with sources whose change can't have changed a result.

An edited comment gives a stage's folder another hash, and so DVC would run the stage again. This writes the new
hashes into dvc.lock and nothing else. It works in a fresh clone that has neither data nor model, where ``dvc commit``
does not.
"""

import sys

from dvc.repo import Repo
from dvc.stage import PipelineStage


def main() -> None:
    with Repo() as repo, repo.lock:
        stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
        for stage in stages:
            before = recorded(stage)
            if stage.cmd_changed:
                sys.exit(f"error: the command of {stage.name} changed since its run: run `dvc repro`")
            stage.save(allow_missing=True, run_cache=False)
            changed = [name for name, value in recorded(stage).items() if name in before and value != before[name]]
            if changed:
                sys.exit(f"error: {', '.join(changed)} changed since the run of {stage.name}: run `dvc repro`")
        for stage in stages:
            stage.dump(update_pipeline=False)
    print("lock: dvc.lock has the sources as they are now; `make release-check` says whether all agrees")


def recorded(stage: PipelineStage) -> dict[str, object]:
    """List what dvc.lock records of a stage besides its sources: the hashes of its data and results, its parameters."""
    parts = [part for part in (*stage.deps, *stage.outs) if not part.def_path.startswith("src/")]
    return {part.def_path: part.hash_info.value for part in parts if part.hash_info}


if __name__ == "__main__":
    main()
