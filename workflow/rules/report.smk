# Scores where there are labels, the pages people open, and the word that all of it stands.


# Fitted on the same scenes as the maps, so that the comparison is fair.
rule baselines:
    input:
        manifests("ingest", FIT),
        RUN.manifest("normalize", ARCHIVE),
    output:
        RUN.manifest("baselines", ARCHIVE),
    log:
        log_of("baselines"),
    benchmark:
        benchmark_of("baselines")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(3000),
        runtime=minutes(20),
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        settings=stage_arguments(SETTINGS, "baselines"),
        code=code_of("baselines"),
    shell:
        "sass evaluate {params.run:q} --baselines {params.fit} {params.settings} > {log:q} 2>&1"


rule evaluate:
    input:
        RUN.catalog_labels("{shard}"),
        RUN.manifest("segment", "{shard}"),
        RUN.manifest("baselines", ARCHIVE),
    output:
        RUN.manifest("evaluate", "{shard}"),
    log:
        log_of("evaluate", "{shard}"),
    benchmark:
        benchmark_of("evaluate", "{shard}")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(3000),
        runtime=minutes(60),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "evaluate"),
        code=code_of("evaluate"),
    shell:
        "sass evaluate {params.run:q} --shard {wildcards.shard} --set-aside "
        "{params.settings} > {log:q} 2>&1"


# One match of classes to labels over the whole archive: the thin step between all shards and the report.
rule metrics:
    input:
        manifests("segment", SHARDS),
        manifests("evaluate", LABELLED),
    output:
        report(RUN.metrics, caption="../report/metrics.rst", category="Scores"),
    log:
        log_of("metrics"),
    benchmark:
        benchmark_of("metrics")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(0),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "evaluate"),
        code=code_of("evaluate"),
    shell:
        "sass evaluate {params.run:q} --merge {params.settings} > {log:q} 2>&1"


rule report:
    input:
        RUN.metrics,
        manifests("change", FOLLOWING),
        BROKEN,
    output:
        report(
            RUN.report / "index.html",
            caption="../report/pages.rst",
            category="Maps and classes",
        ),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(0),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "report"),
        code=code_of("report"),
    shell:
        "sass report {params.run:q} {params.settings} > {log:q} 2>&1"


# The last word: it fails, and with it the workflow, as long as a scene is set aside.
rule complete:
    input:
        RUN.report / "index.html",
        BROKEN,
    output:
        RUN.complete,
    log:
        log_of("complete"),
    benchmark:
        benchmark_of("complete")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(500),
        runtime=minutes(0),
    params:
        run=run_folder,
        code=code_of("report"),
    shell:
        "sass complete {params.run:q} > {log:q} 2>&1"
