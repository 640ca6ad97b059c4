# The one long job. It checkpoints, so a job that is killed and retried goes on where it was.


rule train:
    input:
        manifests("ingest", FIT),
        RUN.manifest("normalize", ARCHIVE),
    output:
        RUN.manifest("train", ARCHIVE),
    log:
        log_of("train"),
    benchmark:
        benchmark_of("train")
    conda:
        "../envs/sass.yml"
    threads: 8
    resources:
        mem_mb=training_megabytes,
        runtime=training_minutes,
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        settings=stage_arguments(SETTINGS, "train"),
        code=stage_fingerprint("train"),
    shell:
        "sass train {params.run:q} --threads {threads} "
        "{params.fit} {params.settings} > {log:q} 2>&1"
