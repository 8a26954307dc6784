# What tests of a server in the background share, after tests/frame.sh. Its log is in log, its addresses are in $address (gRPC) and $admin.
# shellcheck shell=bash

within=() # a program that the server is started by
serve() { # ARGUMENT...
    rm -f listening log # of the one before
    "${within[@]}" "$program" serve "$@" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --look-seconds 0.05 --queue-ms 600000 >listening 2>log </dev/null &
    server=$!
    children+=("$server")
    until grep -qs '^admin on' listening; do
        kill -0 $server || { wrong "no server: $(tail -n 1 log)"; return 1; }
        read -rt 0.05 <> <(:)
    done
    address=$(sed -n 's/^listening on //p' listening)
    admin=$(sed -n 's/^admin on //p' listening)
}
logged() { # PATTERN: waits until the log has it
    waiting="the log to say '$1'; it ends with: $(tail -n 3 log)"
    until grep -qE -- "$1" log; do
        kill -0 $server || { wrong "the server is gone: $(tail -n 1 log)"; return 1; }
        read -rt 0.05 <> <(:)
    done
    waiting=
}
