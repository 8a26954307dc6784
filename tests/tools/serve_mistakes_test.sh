#!/usr/bin/env bash
# What somebody does wrong who starts a server or asks one: what can be said before models are loaded is said before.
. tests/frame.sh

make_files() {
    expect 0 "" synth --rows 1000 --seed 3 --out log.tsv
    expect 0 "" train --schema criteo --model lr --batch 512 --train log.tsv --out model
    cp -r model damaged # whoever begins to load it says so
    echo nonsense >damaged/tower.safetensors
    expect 1 "damaged/tower.safetensors: the file is not what was written" serve --listen 127.0.0.1:0 --model damaged
}

# Starts a server on free ports; sets $child, $address and $admin.
start_server() {
    rm -f ready
    mkfifo ready
    "$program" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --queue-ms 600000 "$@" >ready 2>serve.err </dev/null &
    child=$!
    children+=("$child")
    exec 7<ready
    read -r address <&7
    read -r admin <&7
    exec 7<&-
    address=${address#listening on }
    admin=${admin#admin on http://}
    admin=${admin%/}
    [[ $address == 127.0.0.1:* && $admin == 127.0.0.1:* ]] || wrong "the server says '$address', '$admin': $(tail -n 1 serve.err)"
}
stop_server() {
    kill -TERM "$child"
    wait "$child"
    code=$?
    [ $code -eq 0 ] || wrong "serve ended with $code: $(tail -n 1 serve.err)"
}

addresses_are_tried_before_models_are_loaded() {
    local taken
    start_server --model model
    for taken in "$address" "$admin"; do
        expect 1 "cannot listen on $taken: the port is in use; stop the other program" serve --model damaged --listen "$taken"
        expect 1 "cannot listen on $taken: the port is in use; stop the other program" \
            serve --model damaged --listen 127.0.0.1:0 --admin "$taken"
    done
    stop_server
    # Documentation's own addresses are nobody's.
    expect 1 "cannot listen on 192.0.2.1:8501: it is no address of this machine" \
        serve --model damaged --listen 127.0.0.1:0 --admin 192.0.2.1:8501
    expect 2 "--listen and --admin are both $address: give one of them another port" \
        serve --model damaged --listen "$address" --admin "$address"
    expect 2 "--admin is '127.0.0.1:65536': give HOST:PORT" serve --model damaged --admin 127.0.0.1:65536
}

who_may_call_is_read_before_models_are_loaded() {
    local name
    : >empty
    printf '# only a remark\n' >remark
    head -c 300 /dev/zero | tr '\0' a >long
    printf '\nshort\n' | cat - long >tokens
    expect 1 "empty has no token: write one a line" serve --model damaged --token-file empty
    expect 1 "remark has no token: write one a line" serve --model damaged --token-file remark
    expect 1 "tokens:3: a token of 300 bytes: at most 256" serve --model damaged --token-file tokens
    printf '\xff\xfes\0e\0c\0r\0e\0t\0\n\0' >tokens # UTF-16: of it all but the first character would be left out
    expect 1 "tokens holds a NUL byte: write the tokens as plain ASCII" serve --model damaged --token-file tokens
    printf 'first\rsecond\n' >tokens
    expect 1 "tokens:1: a token of other characters than printable ASCII" serve --model damaged --token-file tokens
    printf 'first\r\nb\xc3\xa4r\n' >tokens
    expect 1 "tokens:2: a token of other characters than printable ASCII" serve --model damaged --token-file tokens
    seq 1 1100 >tokens
    expect 1 "tokens:1025: more than 1024 tokens" serve --model damaged --token-file tokens
    if ! command -v openssl >/dev/null; then
        echo "SKIP: no openssl to make certificates with"
        return
    fi
    for name in one other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $name.key -out $name.pem -subj /CN=localhost \
            2>openssl.err || wrong "openssl: $(tail -n 1 openssl.err)"
    done
    expect 1 "one.pem, other.key: .*key does not belong to the certificate" serve --model damaged --tls-cert one.pem --tls-key other.key
    expect 1 "one.pem, other.key: the admin port's TLS certificate and key can't be used: " \
        serve --model damaged --admin 127.0.0.1:0 --admin-tls-cert one.pem --admin-tls-key other.key
}

a_limit_on_memory_has_a_least_one() {
    expect 2 "--memory is '3': reading rows from disk takes more; give at least 4, or 0" serve --model damaged --memory 3
    expect 2 "--memory is '5': reading rows from disk takes more; give at least 6, or 0" serve --follow nothing --memory 5
    expect 2 "--memory is '1': reading rows from disk takes more; give at least 4, or 0" eval --model damaged --data log.tsv --memory 1
}

options_that_do_not_fit_are_refused() {
    expect 1 "--follow model: is a model folder, not one of .train --publish.: give it as --model" serve --listen 127.0.0.1:0 --follow model
    expect 1 "--follow model: is a model folder, not one of .train --publish.: give it as --model" \
        serve --listen 127.0.0.1:0 --model model --follow model
    local without="does nothing without"
    expect 2 "--exposure-sample $without --exposures DIR: give that, too, or leave it out" serve --model damaged --exposure-sample 0.5
    expect 2 "--exposure-buffer $without --exposures DIR" serve --model damaged --feedback log --exposure-buffer 8
    expect 2 "--rotate-mib $without --exposures DIR or --feedback DIR: give one of them, too" serve --model damaged --rotate-mib 8
    expect 2 "--rotate-seconds $without --exposures DIR or --feedback DIR" serve --model damaged --rotate-seconds 8
    expect 2 "--scratch $without --memory MIB" serve --model damaged --scratch .
    expect 2 "--scratch $without --memory MIB" serve --follow damaged --scratch . --memory 0
    expect 2 "--scratch $without --follow \[NAME=\]DIR" serve --model damaged --scratch . --memory 64
    expect 2 "--admin-tls-cert $without --admin HOST:PORT" serve --model damaged --admin-tls-cert a.pem --admin-tls-key a.key
    # With what they need they are taken: the model is what is wrong.
    expect 1 "damaged/tower.safetensors" serve --listen 127.0.0.1:0 --model damaged --exposures log --exposure-sample 0.5 --rotate-mib 8
    expect 1 "damaged/tower.safetensors" serve --listen 127.0.0.1:0 --model damaged --feedback log --rotate-seconds 8
    expect 1 "damaged: " serve --listen 127.0.0.1:0 --follow damaged --memory 64 --scratch .
}

a_client_says_why_there_is_no_connection() {
    start_server --model model
    expect 1 "127.0.0.1:1: no connection \\(.*Connection refused\\); is there a gRPC server at this port, without TLS" \
        score --to 127.0.0.1:1 --data log.tsv --timeout 0.1
    expect 1 "$admin: no connection \\(.*\\); is there a gRPC server at this port" score --to "$admin" --data log.tsv --timeout 0.1
    expect 1 "$admin: no connection \\(.*\\); is there a gRPC server at this port" \
        score --to "$admin" --data log.tsv --schema criteo --timeout 60
    if [ -e one.pem ]; then
        expect 1 "$address: no connection \\(.*\\); is there a gRPC server at this port, with TLS and a certificate" \
            score --to "$address" --data log.tsv --tls-ca one.pem --timeout 0.1
    fi
    stop_server
}

run_case make_files
run_case a_limit_on_memory_has_a_least_one
run_case addresses_are_tried_before_models_are_loaded
run_case who_may_call_is_read_before_models_are_loaded
run_case options_that_do_not_fit_are_refused
run_case a_client_says_why_there_is_no_connection
finish
