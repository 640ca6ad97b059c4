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
        gpu=0,  # a profile knows how many there are; each gets a process of its own
        nodes=1,
    params:
        run=run_folder,
        fit=FIT_ARGUMENTS,
        settings=stage_arguments(SETTINGS, "train"),
        code=code_of("train"),
    shell:
        "python -m sass.launch --nodes {resources.nodes} --gpus {resources.gpu} --threads {threads} "
        "train {params.run:q} {params.fit} {params.settings} > {log:q} 2>&1"
