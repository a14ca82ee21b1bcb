#!/bin/bash
@OPTIONS@

say() { echo "$(date '+%F %T') job ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID on $SLURMD_NODENAME $*"; }
# USR1: SLURM, ahead of the time limit or of a preemption. The worker saves, and the job is queued again.
# USR2: hpsearch stop. The worker saves, and the job ends.
# TERM: SLURM's own end, which every process of a job hears by itself.
keeper= code=130
end() {
  trap '' USR1 USR2 TERM
  trap - EXIT
  if [ -n "$keeper" ]; then
    [ "$1" = TERM ] || kill -TERM "$keeper"
    wait "$keeper"; code=$?
  fi
  case $1:$code in
    USR1:130)
      if scontrol requeue "$SLURM_JOB_ID"
      then say "is out of time, or preempted: it is queued again"
      else say "is out of time, or preempted, and may not be queued again: launch again"
      fi ;;
    USR2:130) say "has stopped"; code=0 ;;
  esac
  exit "$code"
}
trap 'end USR1' USR1; trap 'end USR2' USR2; trap 'end TERM' TERM

say begins
export @JOB@="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" PYTHONUNBUFFERED=1
export PATH=@BIN@:"$PATH"
@SETUP@command -v hpsearch > /dev/null || {
  say "finds no hpsearch: "@BIN@" must be in a folder that the nodes share"
  exit 127
}

hpsearch @COMMAND@ &
keeper=$!
wait "$keeper"
exit $?
