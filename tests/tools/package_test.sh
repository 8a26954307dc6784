#!/usr/bin/env bash
# tools/package makes a Debian package; what is in it works from where it is unpacked. deploy/ goes with it. Skips without dpkg's tools.
. tests/frame.sh
source_tree=$root
export HOME=$work SOURCE_DATE_EPOCH=1700000000

for tool in dpkg-deb dpkg-shlibdeps strip; do
    if ! command -v $tool >/dev/null; then
        echo "SKIP: $tool is not installed (Debian's dpkg-dev and binutils)"
        exit 0
    fi
done
if ! "$source_tree/tools/package" --binary "$program" --out "$work/one" >"$work/name" 2>"$work/err"; then
    cat "$work/err"
    exit 1
fi
deb=$(cat "$work/name")
root=$work/root
dpkg-deb -x "$deb" "$root" && dpkg-deb -e "$deb" "$work/control" || exit 1

the_program_runs_from_the_package() {
    "$root/usr/bin/clicktower" --help >"$work/help" || wrong "--help ends with $?"
    [ "$(cat "$work/help")" = "$("$program" --help)" ] || wrong "another --help"
    "$root/usr/bin/clicktower" synth --rows 500 --out "$work/log.tsv" >/dev/null && "$root/usr/bin/clicktower" train --schema criteo --model lr \
        --train "$work/log.tsv" --out "$work/model" >/dev/null && "$root/usr/bin/clicktower" verify "$work/model" >/dev/null ||
        wrong "a model cannot be trained"
}
control_says_what_is_needed() {
    has "$work/control/control" '^Package: clicktower$'
    has "$work/control/control" "^Version: $("$program" --version | cut -d' ' -f2)$"
    has "$work/control/control" "^Architecture: $(dpkg --print-architecture)$"
    has "$work/control/control" '^Depends: .*libc6 .*libdnnl.*libgrpc.*librocksdb'
    has "$work/control/conffiles" '^/etc/default/clicktower$'
    (cd "$root" && md5sum --quiet -c "$work/control/md5sums") || wrong "checksums"
    # Every library that the program asks the loader for is in a package that is named.
    local packages
    packages=$(sed -n 's/^Depends: //p' "$work/control/control" | tr ',' '\n' | sed 's/^ *//;s/ .*//')
    dpkg -L $packages 2>/dev/null | sed 's|.*/||' >"$work/files"
    for library in $(objdump -p "$root/usr/bin/clicktower" | sed -n 's/^ *NEEDED *//p'); do
        grep -qxF "$library" "$work/files" || wrong "$library is in none of: $packages"
    done
    grep -rqI -e "$source_tree" -e "/execroot/" "$root" && wrong "a path of the building machine is in the package"
    return 0
}
equal_programs_give_equal_packages() {
    "$source_tree/tools/package" --binary "$program" --out "$work/two" >/dev/null 2>&1 || wrong "a second run fails"
    cmp "$deb" "$work/two/${deb##*/}" || wrong "they differ"
}
the_manual_page_says_what_help_says() {
    gunzip -c "$root/usr/share/man/man1/clicktower.1.gz" >"$work/clicktower.1"
    for verb in $("$program" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' | grep -v '^clicktower$'); do
        has "$work/clicktower.1" "^\.SS clicktower $verb"
        sed -n "/^\.SS clicktower $verb\b/,/^\.S[SH] /p" "$work/clicktower.1" >"$work/section"
        for option in $("$program" "$verb" --help | grep -oE '^ +--[a-z-]+' | grep -vx ' *--help'); do
            escaped=${option//-/'\\-'}
            has "$work/section" "^.fB$escaped.fR"
        done
    done
    if command -v groff >/dev/null && command -v man >/dev/null; then
        MANROFFSEQ='' LC_ALL=C.UTF-8 man --warnings -l "$work/clicktower.1" >"$work/page" 2>"$work/err" || wrong "man ends with $?"
        [ -s "$work/err" ] && wrong "man warns: $(cat "$work/err")"
        has "$work/page" '--set PATH=VALUE'
    else
        echo "  SKIP: no man here; the page was not rendered"
    fi
}
what_the_manual_names_is_in_the_package() {
    local file
    for file in $(sed -n '/^\.SH SEE ALSO/,$s/^\.IR \([a-z.\\-]*\) .*/\1/p' "$work/clicktower.1" | tr -d '\\'); do
        [ -s "$root/usr/share/doc/clicktower/$file" ] || wrong "$file is not in the package"
        echo "$file"
    done >"$work/named"
    [ "$(wc -l <"$work/named")" -eq 5 ] || wrong "the manual names: $(cat "$work/named")"
    for file in $(sed -n 's/.*](\([a-z-]*\.[a-z]*\)[#)].*/\1/p' "$root"/usr/share/doc/clicktower/*.md | sort -u); do
        [ -s "$root/usr/share/doc/clicktower/$file" ] || wrong "a page links to $file, which is not in the package"
    done
}
completion_knows_the_verbs() {
    PATH=$root/usr/bin:$PATH bash -c '
        source "$1/usr/share/bash-completion/completions/clicktower"
        COMP_WORDS=(clicktower se) COMP_CWORD=1
        _clicktower clicktower se
        echo "${COMPREPLY[*]}"
        COMP_WORDS=(clicktower serve --ad) COMP_CWORD=2
        _clicktower clicktower --ad
        echo "${COMPREPLY[*]}"' - "$root" >"$work/completed"
    [ "$(cat "$work/completed")" = "$(printf 'serve\n--admin --admin-tls-cert --admin-tls-key')" ] || wrong "completed: $(cat "$work/completed")"
}
# check_options WHERE WORDS...: what a file gives to `serve` is known to it.
check_options() {
    local where=$1 word
    shift
    for word in "$@"; do
        case $word in
            --*) "$program" serve --help | grep -qE -- "^ +$word( |=|$)" || wrong "$where: serve has no $word" ;;
        esac
    done
}
the_unit_is_sound() {
    local unit=$root/lib/systemd/system/clicktower.service options
    options=$(bash -c '. "$1" && echo "$CLICKTOWER_OPTIONS"' - "$root/etc/default/clicktower")
    has "$root/etc/default/clicktower" '--model'
    check_options "etc/default/clicktower" $options
    has "$unit" '^ExecStart=/usr/bin/clicktower serve '
    if ! command -v systemd-analyze >/dev/null; then
        echo "  SKIP: no systemd-analyze here"
        return
    fi
    # Where the program and its manual are not installed, systemd would miss them.
    sed -e "s|/usr/bin/clicktower|$root/usr/bin/clicktower|" -e '/^Documentation=/d' -e 's|/etc/default|'"$root"'/etc/default|' "$unit" \
        >"$work/clicktower.service"
    systemd-analyze verify "$work/clicktower.service" >"$work/said" 2>&1 || wrong "systemd-analyze verify: $(cat "$work/said")"
    grep clicktower "$work/said" && wrong "systemd-analyze verify has something to say"
    systemd-analyze security --offline=yes --threshold=20 "$work/clicktower.service" >"$work/said" 2>&1 ||
        wrong "systemd-analyze security: $(tail -n 3 "$work/said")"
}
deploy_fits_the_program() {
    has "$source_tree/deploy/Dockerfile" '^FROM debian:12-slim$'
    check_options "$source_tree/deploy/Dockerfile" $(sed -n 's/^CMD//p' "$source_tree/deploy/Dockerfile" | tr -d '[]",')
    if ! /usr/bin/python3 -c 'import yaml' 2>/dev/null; then
        echo "  SKIP: no python3-yaml here; kubernetes.yaml was not read"
        return
    fi
    local version
    version=$("$program" --version | cut -d' ' -f2)
    has "$source_tree/deploy/Dockerfile" "^# .* docker build -t clicktower:$version deploy$"
    /usr/bin/python3 - "$source_tree/deploy/kubernetes.yaml" "$version" >"$work/arguments" <<'END' || wrong "kubernetes.yaml"
import sys, yaml
documents = list(yaml.safe_load_all(open(sys.argv[1])))
kinds = {document["kind"]: document for document in documents}
assert list(kinds) == ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"], list(kinds)
spec = kinds["Deployment"]["spec"]
container, = spec["template"]["spec"]["containers"]
assert container["image"] == f"clicktower:{sys.argv[2]}", container["image"]
labels = spec["template"]["metadata"]["labels"]
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
arguments = dict(zip(container["args"][1::2], container["args"][2::2]))
assert arguments["--listen"].endswith(f":{ports['grpc']}") and arguments["--admin"].endswith(f":{ports['admin']}")
for probe, path in (("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
    assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe
assert spec["selector"]["matchLabels"] == labels == kinds["Service"]["spec"]["selector"]
mount, = container["volumeMounts"]
assert mount["readOnly"] and arguments["--model"].split("=")[1].startswith(mount["mountPath"])
print(" ".join(container["args"]))
END
    check_options "$source_tree/deploy/kubernetes.yaml" $(cat "$work/arguments")
}
lintian_is_content() {
    if ! command -v lintian >/dev/null; then
        echo "  SKIP: lintian is not installed"
        return
    fi
    lintian --allow-root --fail-on error,warning "$deb" >"$work/said" 2>&1 || wrong "lintian: $(cat "$work/said")"
}
wrong_use_is_refused() {
    "$source_tree/tools/package" --what >/dev/null 2>"$work/err"
    [ $? -eq 2 ] || wrong "an unknown argument does not end with 2"
    has "$work/err" "unknown argument '--what'"
    "$source_tree/tools/package" --binary "$work/none" --out "$work/three" >/dev/null 2>&1 && wrong "a program that is not there is packed"
    "$source_tree/tools/package" --help | grep -q '^Usage: tools/package' || wrong "no --help"
}

run_case the_program_runs_from_the_package
run_case control_says_what_is_needed
run_case equal_programs_give_equal_packages
run_case the_manual_page_says_what_help_says
run_case what_the_manual_names_is_in_the_package
run_case completion_knows_the_verbs
run_case the_unit_is_sound
run_case deploy_fits_the_program
run_case lintian_is_content
run_case wrong_use_is_refused
finish
