# From rasters to stores that are read in windows, and to the scale of each band.


rule ingest:
    input:
        RUN.catalog_shard("{shard}"),
    output:
        RUN.manifest("ingest", "{shard}"),
    log:
        log_of("ingest", "{shard}"),
    benchmark:
        benchmark_of("ingest", "{shard}")
    conda:
        "../envs/sass.yml"
    threads: THREADS
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(60),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "ingest"),
        where=where,
        code=code_of("ingest"),
    shell:
        "sass ingest {params.run:q} --shard {wildcards.shard} --set-aside "
        "--threads {threads} {params.settings} {params.where} > {log:q} 2>&1"


# Only the fit shards are read here and in the fits below: scenes that come later change nothing.
rule normalize:
    input:
        manifests("ingest", FIT),
    output:
        RUN.manifest("normalize", ARCHIVE),
    log:
        log_of("normalize"),
    benchmark:
        benchmark_of("normalize")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=minutes(1),
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        settings=stage_arguments(SETTINGS, "normalize"),
        code=code_of("normalize"),
    shell:
        "sass normalize {params.run:q} {params.fit} {params.settings} > {log:q} 2>&1"
