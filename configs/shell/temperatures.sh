#!/usr/bin/env bash
# One prompt at several temperatures, a process and a file for each text:
#
#   temperatures.sh "Once upon a time" texts 0.2 0.7 1.4
#
# writes texts/0.2-0.txt (temperature 0.2, seed 0) and so on; a file that is there already is left alone,
# so that the same command goes on where it was stopped. In the environment:
#
#   SEEDS="0 1 2"                 a text for each (default: 0)
#   JOBS=2                        processes at a time (default: 1)
#   DECODECLI_MAX_NEW_TOKENS=20   and every other option of decodecli
#
# The exit code is 0, 2 for wrong usage, else 1; an error leaves the other texts.
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: ${0##*/} PROMPT FOLDER [TEMPERATURE]…" >&2
  exit 2
fi
prompt=$1 folder=$2
shift 2
[ $# -gt 0 ] || set -- 0.2 0.7 1.0 1.4
for temperature in "$@"; do
  case $temperature in
  '' | *[!0-9.e+-]* | [!0-9.+]*)
    echo "${0##*/}: a temperature is a number from 0 up, not '$temperature'" >&2
    exit 2
    ;;
  esac
done
mkdir -p -- "$folder"

for temperature in "$@"; do
  for seed in ${SEEDS:-0}; do
    printf '%s\0%s\0' "$temperature" "$seed"
  done
done | xargs -0 -n 2 -P "${JOBS:-1}" sh -c '
  file=$2/$3-$4.txt
  [ -e "$file" ] && exit
  trap "rm -f -- \"\$file.part\"" EXIT
  trap "exit 130" INT TERM
  decodecli generate --quiet --temperature "$3" --seed "$4" -- "$1" > "$file.part" || exit 1
  mv -- "$file.part" "$file"
' sh "$prompt" "$folder" || exit 1  # xargs itself ends with 123
