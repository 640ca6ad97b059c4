include: "workflow/Snakefile"


# An included file cannot set the default target, so it stands here.
rule all:
    input:
        everything,


localrules:
    all,
