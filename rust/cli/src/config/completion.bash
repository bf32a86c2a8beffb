# Completes the subcommands of hlrp and, after them, groups, options and keys of the configuration.
# bash: source <(hlrp config completion)    zsh: autoload -U bashcompinit && bashcompinit, then the same
_hlrp() {
    local word="${COMP_LINE:0:COMP_POINT}"
    word="${word##*[[:space:]]}"
    local candidates
    if [[ $COMP_CWORD -eq 1 ]]; then
        candidates=$(hlrp --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')
    elif [[ $COMP_CWORD -eq 2 && ${COMP_WORDS[1]} == config ]]; then
        candidates=$(hlrp config --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')
    else
        local arguments=(@TREE@)
        # The key of `hlrp config explain` has no value.
        [[ $COMP_CWORD -eq 3 && ${COMP_WORDS[1]} == config && ${COMP_WORDS[2]} == explain ]] && arguments+=(--keys)
        candidates=$(hlrp config complete "${arguments[@]}" -- "$word" 2>/dev/null)
    fi
    # Bash ends words at '=', so it replaces only what follows it.
    local kept=""
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && kept="${word%=*}="
    COMPREPLY=()
    local candidate
    while IFS= read -r candidate; do
        [[ $candidate == "$word"* ]] && COMPREPLY+=("${candidate#"$kept"}")
    done <<< "$candidates"
    [[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "${word#"$kept"}"))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _hlrp hlrp
