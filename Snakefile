# The workflow of a checkout. What other workflows take in, as a module, is workflow/Snakefile.
include: "workflow/Snakefile"


# an included file leaves the target as it was
workflow.default_target = "all"
