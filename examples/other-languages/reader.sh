#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Reads one key of a keyferry volume: sh reader.sh VOLUME KEY
#
# For each line on standard input it looks once and tells each version's id, state and a digest of its bytes.
# Needs jq, iconv, and base64 and sha256sum of coreutils or busybox. Key material goes through pipes only: whatever is
# an argument, everybody on the machine can read.
set -u
export LC_ALL=C
volume=$1 key=$2
link='' kept='' activated=''

# Checks what the contract says of the document and of its texts, and brings every material to standard base64.
# shellcheck disable=SC2016
PARSE='
def must(condition): if condition then . else error("breaks the contract") end;
def time: must(test("\\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z\\z"));
def standard($encoding):
    if .binary == true then must($encoding == "binary") | .material
    elif $encoding == "text" or $encoding == "binary" then .material | @base64
    elif $encoding == "base64" then .material | must(test("\\A[A-Za-z0-9+/]+={0,2}\\z"))
    elif $encoding == "base64url" then .material | must(test("\\A[A-Za-z0-9_-]+={0,2}\\z"))
        | gsub("-"; "+") | gsub("_"; "/") | if endswith("=") then . else . + ["", "===", "==", "="][length % 4] end
    elif $encoding == "hex" then .material | must(test("\\A([0-9A-Fa-f]{2})+\\z")) | "hex:" + .
    else must(false) end;
must(length == 1) | .[0] | must(.schema == "keyferry/v1") | (.published_at | time) as $published
| .keys | must(type == "object" and all(.[]; type == "object")) | .[$key] | if . == null then {absent: true}
  elif .withdrawn != null then {withdrawn: true}
  else .length as $length | .encoding as $encoding | .versions | must(any(.[]; .activates_at != null))
    | {published: $published, versions: map(must((.id | type) == "string" and (.material | type) == "string")
        | {id, activates: (.activates_at | if . then time else . end), $length, base64: standard($encoding)})} end'

ANSWER='
(.versions | map(.activates)) as $times | ([range($times | length)]) as $all
| ([$all[] | select($times[.] != null and $times[.] <= $now)] | last // ([$all[] | select($times[.] != null)] | first)) as $active
| {result: "ok", versions: [$all[] as $i | .versions[$i] | {id, state: (if $i == $active then "active"
    elif $i > $active and $times[$i] != null then "pre-active" else "deactivated" end), sha256}]}'

# Prints the bytes of "hex:..." or of base64. What they were made of is not printed in any other way.
bytes() {
    case $1 in
        hex:*) for pair in $(printf %s "${1#hex:}" | sed 's/../& /g'); do
            # shellcheck disable=SC2059
            printf "\\$(printf %03o "0x$pair")"
        done ;;
        *) printf %s "$1" | base64 -d 2>/dev/null ;;
    esac
}

# Prints the digest of a version's bytes; fails if they are not what encoding and length say.
digest() {
    case $1 in hex:*) ;; *) [ "$(bytes "$1" | base64 | tr -d '\n')" = "$1" ] || return 1 ;; esac
    size=$(bytes "$1" | wc -c)
    [ "$2" = null ] || [ "$size" -eq "$2" ] || return 1
    [ "$(bytes "$1" | tr -d '\0' | wc -c)" -gt 0 ] || return 1
    bytes "$1" | sha256sum | cut -d ' ' -f 1
}

# Prints what the document on standard input means, with digests in place of material; fails if it is broken.
parse() {
    document=$(iconv -f UTF-8 -t UTF-8 2>/dev/null | jq -cs --arg key "$key" "$PARSE" 2>/dev/null) || return 1
    digests=$(printf %s "$document" | jq -r '.versions // [] | .[] | "\(.length) \(.base64)"' |
        while read -r length base64; do digest "$base64" "$length" || exit 1; done) || return 1
    { printf '%s\n' "$document"; printf '%s\n' "$digests" | jq -R .; } |
        jq -cs '.[1:] as $digests | .[0] | if .versions then .versions |= [range(length) as $i | .[$i]
            | {id, activates, sha256: $digests[$i]}] else . end'
}

# Prints what a generation means. It is entered, and everything is read from there. 1: broken, 2: look again.
generation() (
    [ ! -L "$volume/$1" ] || exit 1
    cd -P "$volume/$1" 2>/dev/null || { if [ -e "$volume/$1" ]; then exit 1; else exit 2; fi; }
    [ -e keyring.json ] || exit 2
    [ -f keyring.json ] && [ ! -L keyring.json ] && parse <keyring.json
)

# Brings link and kept up to date. 1: what is there breaks the contract, 3: nothing is published.
look() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        found=$(readlink "$volume/..data") || return 3
        [ "$found" != "$link" ] || return 0
        case $found in
            */*) return 1 ;;
            ..gen-*) new=$(generation "$found") ;;
            *) return 1 ;;
        esac
        case $? in
            0) [ "$new" != '{"absent":true}' ] || return 3
               link=$found kept=$new
               return 0 ;;
            1) return 1 ;;
        esac
    done
    return 1
}

latest() { printf '%s\n' "$@" | sort | tail -n 1; }

# Times are text that sorts. Of what was now before only the time of the version that was used counts: a clock that was
# ahead would bring later versions forward.
states() {
    now=$(latest "$activated" "$(date -u +%Y-%m-%dT%H:%M:%S.000Z)" "$(printf %s "$kept" | jq -r .published)")
    used=$(printf %s "$kept" | jq -r --arg now "$now" '[.versions[].activates | strings | select(. <= $now)] | last // ""')
    activated=$(latest "$activated" "$used")
    printf %s "$kept" | jq -c --arg now "$now" "$ANSWER"
}

while read -r _; do
    look
    problem=$?
    [ "$problem" -ne 1 ] || echo "reader: $volume breaks the contract; what was read before stays" >&2
    case $kept in
        '') if [ "$problem" -eq 3 ]; then echo '{"result": "not-published"}'; else echo '{"result": "broken"}'; fi ;;
        '{"withdrawn":true}') echo '{"result": "withdrawn"}' ;;
        *) states ;;
    esac
done
