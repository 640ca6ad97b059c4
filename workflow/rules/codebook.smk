# From the encoder to fine codes, and to the tree that merges them into any number of classes.


rule features:
    input:
        RUN.manifest("ingest", "{shard}"),
        # embeddings that others have made need no encoder
        RUN.manifest("normalize" if SETTINGS.features.source else "train", ARCHIVE),
    output:
        RUN.manifest("features", "{shard}"),
    log:
        log_of("features", "{shard}"),
    benchmark:
        benchmark_of("features", "{shard}")
    conda:
        "../envs/sass.yml"
    threads: THREADS
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "features"),
        code=code_of("features"),
    shell:
        "sass features {params.run:q} --shard {wildcards.shard} --set-aside "
        "--threads {threads} {params.settings} > {log:q} 2>&1"


rule codebook:
    input:
        manifests("features", FIT),
    output:
        RUN.manifest("codebook", ARCHIVE),
    log:
        log_of("codebook"),
    benchmark:
        benchmark_of("codebook")
    conda:
        "../envs/sass.yml"
    threads: 4
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(10),
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        settings=stage_arguments(SETTINGS, "codebook"),
        where=where,
        code=code_of("codebook"),
    shell:
        "sass codebook {params.run:q} --threads {threads} "
        "{params.fit} {params.settings} {params.where} > {log:q} 2>&1"


rule hierarchy:
    input:
        RUN.manifest("codebook", ARCHIVE),
    output:
        RUN.manifest("hierarchy", ARCHIVE),
    log:
        log_of("hierarchy"),
    benchmark:
        benchmark_of("hierarchy")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(0),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "hierarchy"),
        code=code_of("hierarchy"),
    shell:
        "sass hierarchy {params.run:q} {params.settings} > {log:q} 2>&1"


# Only where `sass name` was given labelled places: what they say of a codebook that was fitted anew.
rule name:
    input:
        RUN.places,
        RUN.manifest("codebook", ARCHIVE),
        RUN.manifest("hierarchy", ARCHIVE),
        manifests("features", NAMED),
    output:
        RUN.names,
    log:
        log_of("name"),
    benchmark:
        benchmark_of("name")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(0),
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        code=code_of("name"),
    shell:
        "sass name {params.run:q} {params.fit} > {log:q} 2>&1"
