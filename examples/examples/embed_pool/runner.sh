# The runner: runs payloads on one instance, of which its working directory is the disk.
#
#   start UUID N                     starts attempt N of the payload on standard input
#   kill SIGNAL UUID N               signals it, and waits up to a second for its end
#   report WAIT_MS KNOWN [UUID.N]..  forgets the results named, waits for news, tells everything
#   output STREAM LAST UUID N        prints the last bytes of an output stream
#
# runs/UUID.N is all that is known of an attempt. It appears whole, by a rename, and never goes:
# an attempt that is known is not run again. In it are the payload, its output, and
#   lock    held by the supervisor and by everything that the payload leaves running
#   end     its exit code
#   killed  a kill was asked for
#   acked   its result may be forgotten, or it never ran and never will
# Needs util-linux: setsid and flock.

mkdir -p runs && exec 8> runs/lock || exit 1
new=runs/new-$$
trap 'rm -rf "$new"' EXIT

runs() { ! flock -n "$1/lock" true; }

supervise='
  trap : TERM
  sh "$1/payload" > "$1/stdout" 2> "$1/stderr"
  echo $? > "$1/end.new" && mv "$1/end.new" "$1/end"'

start() {
  here=runs/$1.$2
  mkdir "$new" && cat > "$new/payload" || exit 1
  # What is cut off on its way must not be run.
  [ "$(tail -n 1 "$new/payload")" = '# end' ] || exit 1
  flock 8 || exit 1
  for known in runs/"$1".*; do
    [ ! -d "$known" ] || [ "${known##*.}" -lt "$2" ] || exit 3
    [ ! -d "$known" ] || [ -e "$known/acked" ] || exit 1
  done
  mv "$new" "$here" || exit 1
  # From here on it counts as started: if this shell dies now, its result is that it was lost.
  exec 9> "$here/lock" && flock 9
  setsid sh -c "$supervise" supervisor "$here" < /dev/null > /dev/null 2>&1 8>&- &
  echo $! > "$here/pid"
}

kill_attempt() {
  here=runs/$2.$3
  flock 8 || exit 1
  if [ ! -d "$here" ]; then
    # It was never seen. It may still be on its way, and is refused then.
    mkdir "$new" && : > "$new/acked" && mv "$new" "$here" || exit 1
    exit 0
  fi
  runs "$here" || exit 0
  : > "$here/killed" && kill "-$1" "-$(cat "$here/pid")"
  flock -u 8
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sleep 0.05
    runs "$here" || exit 0
  done
  exit 4
}

state() {
  if runs "$1"; then
    printf '"state":"running"'
    return
  fi
  printf '"state":"finished","stdout_bytes":%s,"stderr_bytes":%s,' \
    "$(cat "$1/stdout" 2> /dev/null | wc -c)" "$(cat "$1/stderr" 2> /dev/null | wc -c)"
  if [ -e "$1/killed" ]; then
    printf '"cause":"killed"'
  elif [ ! -e "$1/end" ]; then
    printf '"cause":"supervisor_lost"'
  elif [ "$(cat "$1/end")" -gt 128 ]; then
    printf '"cause":"signaled","signal":%s' $(($(cat "$1/end") - 128))
  else
    printf '"cause":"exited","code":%s' "$(cat "$1/end")"
  fi
}

containers() {
  for here in runs/*.*; do
    [ -d "$here" ] && [ ! -e "$here/acked" ] || continue
    uuid=${here#runs/}
    printf '{"type":"container","uuid":"%s","attempt":%s,%s}\n' \
      "${uuid%.*}" "${here##*.}" "$(state "$here")"
  done
}

report() {
  patience=$1 known=$2
  shift 2
  flock 8 || exit 1
  for result in "$@"; do
    [ ! -d "runs/$result" ] || runs "runs/$result" || {
      : > "runs/$result/acked" || exit 1
      (cd "runs/$result" && rm -f payload stdout stderr end pid killed)
    }
  done
  while :; do
    containers=$(containers)
    flock -u 8
    digest=$(echo "$containers" | cksum | tr ' ' -)
    [ "$digest" = "$known" ] && [ "$patience" -gt 0 ] || break
    sleep 0.05
    patience=$((patience - 50))
    flock 8 || exit 1
  done
  echo '{"type":"report","version":1}'
  [ -z "$containers" ] || echo "$containers"
  # The last line proves that nothing was cut off.
  count=$(echo "$containers" | grep -c .)
  echo "{\"type\":\"end\",\"containers\":$count,\"digest\":\"$digest\"}"
}

command=$1
shift
case $command in
  start) start "$@" ;;
  kill) kill_attempt "$@" ;;
  report) report "$@" ;;
  output) tail -c "$2" "runs/$3.$4/$1" ;;
  *) exit 2 ;;
esac
