# From features to maps, and from maps of two dates to what has changed. Another number of classes reruns this and the
# scores, and nothing before it.


rule segment:
    input:
        RUN.manifest("features", "{shard}"),
        RUN.manifest("codebook", ARCHIVE),
        RUN.manifest("hierarchy", ARCHIVE),
        NAMES,
        # the scale of the pixels whose edges are followed
        RUN.manifest("normalize", ARCHIVE) if SETTINGS.segment.smooth else [],
    output:
        RUN.manifest("segment", "{shard}"),
    log:
        log_of("segment", "{shard}"),
    benchmark:
        benchmark_of("segment", "{shard}")
    conda:
        "../envs/sass.yml"
    threads: 1  # two are a tenth faster
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "segment"),
        code=code_of("segment"),
    shell:
        "sass segment {params.run:q} --shard {wildcards.shard} --set-aside "
        "--threads {threads} {params.settings} > {log:q} 2>&1"


# Shards with scenes that follow others of the same footprint, which may lie in other shards.
rule change:
    input:
        RUN.catalog_earlier("{shard}"),
        RUN.manifest("segment", "{shard}"),
        lambda wildcards: manifests("segment", SHARDS[wildcards.shard].earlier),
    output:
        RUN.manifest("change", "{shard}"),
    log:
        log_of("change", "{shard}"),
    benchmark:
        benchmark_of("change", "{shard}")
    conda:
        "../envs/sass.yml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(20),
    params:
        run=run_folder,
        settings=stage_arguments(SETTINGS, "change"),
        code=code_of("change"),
    shell:
        "sass change {params.run:q} --shard {wildcards.shard} --set-aside {params.settings} > {log:q} 2>&1"
