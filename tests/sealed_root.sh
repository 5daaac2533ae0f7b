#!/bin/sh
# Run a command as a container does that is told to: user 10001, no capability, read-only but for $TMPDIR.
# Needs no rights of its own: a user namespace gives them (user_namespaces(7)). To be started with:
#   unshare --user --map-root-user --mount sh tests/sealed_root.sh COMMAND...
set -eu

mount --make-rprivate /
mount -t tmpfs -o size=256m,mode=1777 private "$TMPDIR"
# Each container has a /dev/shm of its own; Python's processes share semaphores there.
mount -t tmpfs -o size=64m,mode=1777 private /dev/shm
while read -r _ _ _ _ place _; do
    # /proc holds no files; who becomes another user writes there. What is hidden behind another mount may fail.
    case $place in
        "$TMPDIR" | /dev/shm | /proc*) ;;
        *) mount -o remount,bind,ro "$(printf '%b' "$place")" 2>/dev/null || : ;;
    esac
done </proc/self/mountinfo
exec unshare --user --map-user=10001 --map-group=10001 -- "$@"
