# Completion for bash: source tools/completion.bash. Verbs and options come from the program's own --help, so they are never stale.
_clicktower() {
    local program=$1 word=$2 verb=${COMP_WORDS[1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compen=$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' | grep -v '^clicktower$')
            compgen -W "$compen --help --version" -- "$word")
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "$verb" --help 2>/dev/null | grep -o '^ *--[a-z-]*' | tr -d ' ')" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -o filenames -F _clicktower clicktower
