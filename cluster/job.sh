#!/bin/bash
#SBATCH --job-name=mnist-resnet --cpus-per-task=2 --requeue --open-mode=append --signal=B:TERM@90
# One experiment of an array, submitted by `make cluster`. Arguments: the commit, and the file of points as Git's object.
# The clone is the point's, not the job's: who runs the point next, on whatever machine, goes on where it stopped.
set -euo pipefail
commit=$1 points=$2 home=$PWD PATH=$PWD/.venv/bin:$PATH
read -ra point <<< "$(git cat-file blob "$points" | sed -n "${SLURM_ARRAY_TASK_ID}p")"
name=$(tr ' /' ',_' <<< "${point[*]:-defaults}")
ref=refs/exps/${commit:0:2}/${commit:2}/$name clone=$home/.dvc/tmp/cluster/$commit/$name
say() { echo "$name: $*" >&2; }
has_run() { git rev-parse --quiet --verify "$ref" > /dev/null; }
DVC_SITE_CACHE_DIR=$(mktemp -d) && export DVC_SITE_CACHE_DIR # a database, so on the machine's own disk
trap 'rm -rf "$DVC_SITE_CACHE_DIR"' EXIT

# The clone. Of two jobs that want the same point, one waits for the other.
mkdir -p "${clone%/*}" && exec 9> "$clone.lock" && flock 9
if [ ! -e "$clone" ]; then
  ! git ls-remote --exit-code origin "$ref" > /dev/null || { say "the Git remote has it" && exit; }
  rm -rf "$clone.new" && git clone --quiet . "$clone.new"
  git -C "$clone.new" remote set-url origin "$(git remote get-url origin)"
  [ ! -e .dvc/config.local ] || cp .dvc/config.local "$clone.new/.dvc/"
  dvc --cd "$clone.new" config --local cache.dir "$(dvc cache dir)"
  COLUMNS=10000 dvc remote list | while IFS=$'\t ' read -r remote url _; do # a relative path means another folder there
    dvc --cd "$clone.new" remote modify --local "$remote" url "$url"
  done
  mv "$clone.new" "$clone"
fi

# The training. It saves when it is asked to end; bash heeds a signal only while it waits.
cd "$clone"
if ! has_run; then
  git checkout --quiet --force -B job "$commit" && rm -f .dvc/tmp/rwlock # a killed DVC leaves both as they were
  set -m && trap 'taken_off=yes && kill -INT -- -$!' TERM
  dvc exp run --name "$name" "${point[@]/#/--set-param=}" &
  wait $! || while kill -0 -- -$! 2> /dev/null; do sleep 1; done
  set +m && trap - TERM
fi
if ! has_run; then
  # After `scancel` and `scontrol requeue` the job is COMPLETING: it is Slurm that decides whether it comes back.
  [ -z "${taken_off-}" ] || [ "$(squeue --noheader --job "$SLURM_JOB_ID" --format %T)" != RUNNING ] ||
    scontrol requeue "$SLURM_JOB_ID"
  say "has not run to its end; its clone waits for the next start" && exit 1
fi
[ -z "$(ls .dvc/tmp/checkpoints 2> /dev/null)" ] ||
  say "started afresh: a checkpoint in its clone is of another processor, or of other library versions"

# The result, compared with what is there: another job may have pushed the same point.
if dvc exp push origin "$name" && git fetch --quiet origin "$ref" && git diff --quiet "$ref" FETCH_HEAD; then
  cd "$home" && rm -rf "$clone"
else
  say "is not pushed; nothing is lost, submit the same points again" && exit 1
fi
